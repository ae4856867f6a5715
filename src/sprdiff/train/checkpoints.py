"""Checkpoints: one safetensors file, written atomically and loaded strictly.

The keys are ``ema.<parameter>`` (always), ``extra.`` (what the stage has beside the model, such as a
discriminator) and, for resuming, ``model.``, ``average.`` and the states of the optimiser. The header holds
the stage, its step and its last step, the configuration of the model, and ``networks``: the parts whose
weights are trained. A checkpoint of preset `sd` holds only what is trained, and the hashes of the pretrained
files that it was trained on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..common.messages import reason
from ..errors import TrainingError
from ..format.kernels import SCALE, from_bytes, packed
from ..models.config import ModelConfig
from ..sd.config import SDConfig

PARTS = (
    "triple_encoder.vae", "triple_encoder.distortion", "triple_encoder.semantic", "triple_encoder.fuse",
    "latent_codec", "synthesis", "reconstruction.coarse", "reconstruction.semantic", "reconstruction.pixel",
    "flow", "vae_decoder", "latent_",
)  # fmt: skip
DERIVED = ("slow.",)
"""Extras that start as a copy of the model's weights if a checkpoint has none."""
ONLY_SD = ("synthesis.estimate", "denoiser")
"""Prefixes that only preset `sd` has. A checkpoint names prefixes of `PARTS` and of these in ``networks``.

A weight belongs to the first prefix that fits; together they cover every weight of a model. A stage names
only what it trained, so that a later checkpoint never brings back older weights of another part.
"""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    stage: str
    step: int
    config: ModelConfig | SDConfig
    networks: tuple[str, ...]
    tensors: dict[str, Tensor]
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    """Preset `sd`: the SHA-256 of every pretrained file that the weights were trained on, by part."""
    total: int = 0
    """The last step of the stage, at which its learning rate reaches zero; 0 if it is not known."""
    first: int = 0
    """The step at which this leg of the stage began, with a warm-up."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under a prefix; their names lose it."""
        return {
            k.removeprefix(prefix + "."): v for k, v in self.tensors.items() if k.startswith(prefix + ".")
        }


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that checkpoints hold: all of `tiny`, and of `sd` all that are not pretrained."""
    trained = getattr(model, "trained_state", None)
    return trained() if callable(trained) else model.state_dict()


def sources_of(model: nn.Module) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of the files of a model's pretrained parts, by part; presets without any give {}."""
    found: Mapping[str, Any] = getattr(model, "sources", {})
    return {part: dict(source.files) for part, source in found.items()}


def check_sources(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Refuse weights that were trained on other pretrained parts: they fit by shape and yet are wrong.

    Raises:
        TrainingError: a file of a pretrained part differs.
    """
    own = sources_of(model)
    for part, files in checkpoint.sources.items():
        for file, digest in files.items():
            if own.get(part, {}).get(file) != digest:
                raise TrainingError(
                    f"{path} was trained on another {file} of the part {part}: give the same --{part}"
                )


def part_of(name: str) -> str:
    """Return the part that a weight belongs to; empty if the model has no such weight."""
    return next((p for p in (*ONLY_SD, *PARTS) if name.startswith(p)), "")


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: if the process is killed, the old file or the new one is there.

    Raises:
        TrainingError: it cannot be written.
    """
    meta = {
        "stage": checkpoint.stage,
        "step": str(checkpoint.step),
        "total": str(checkpoint.total),
        "first": str(checkpoint.first),
        "config": checkpoint.config.to_json(),
        "networks": json.dumps(checkpoint.networks),
    }
    if checkpoint.sources:
        meta["sources"] = json.dumps(checkpoint.sources, sort_keys=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().contiguous() for k, v in checkpoint.tensors.items()}, partial, metadata=meta)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written ({error})") from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: it is missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
        return Checkpoint(
            meta["stage"],
            int(meta["step"]),
            _config(meta["config"]),
            tuple(json.loads(meta["networks"])),
            _whole_numbers(tensors),
            json.loads(meta.get("sources", "{}")),
            int(meta.get("total", 0)),
            int(meta.get("first", 0)),
        )
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {reason(error)}") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} is not a checkpoint of this version ({error})") from error


def _config(text: str) -> ModelConfig | SDConfig:
    kind = SDConfig if json.loads(text)["preset"] == SDConfig.preset else ModelConfig
    return kind.from_json(text)


def load_networks(model: nn.Module, checkpoint: Checkpoint, source: Path) -> tuple[str, ...]:
    """Copy the EMA weights of a checkpoint's networks into a model; return the prefixes of the networks.

    Raises:
        TrainingError: a weight is missing, unknown or of another shape, or was trained on other pretrained
            parts.
    """
    check_sources(model, checkpoint, source)
    ema = checkpoint.part("ema")
    own = own_state(model)
    wanted = {k for k in own if part_of(k) in checkpoint.networks}
    if missing := wanted - set(ema):
        raise TrainingError(f"{source} lacks {len(missing)} weights, such as {sorted(missing)[0]}")
    if unknown := set(ema) - set(own):
        raise TrainingError(f"{source} has {len(unknown)} unknown weights, such as {sorted(unknown)[0]}")
    for name in wanted:
        if own[name].shape != ema[name].shape:
            raise TrainingError(
                f"{source}: {name} has shape {tuple(ema[name].shape)}, not {tuple(own[name].shape)}"
            )
        own[name].copy_(ema[name].to(own[name].dtype))
    return checkpoint.networks


def trim(path: Path, out: Path, *, bytes_only: bool = False) -> None:
    """Rewrite a checkpoint with only what a later leg needs: the EMA weights of its networks and its extras,
    as fp16.

    Args:
        bytes_only: store large kernels in a quarter of float32 (`format.kernels`). This is meant for weights
            that are trained further, in a repository that keeps every version.
    """
    c = load(path)
    kept = {f"ema.{k}": v.half() for k, v in c.part("ema").items() if part_of(k) in c.networks}
    kept |= {f"extra.{k}": v.half() for k, v in c.part("extra").items() if not k.startswith(DERIVED)}
    if bytes_only:
        stored = packed({name: value.float().numpy() for name, value in kept.items()})
        kept = {name: torch.from_numpy(array) for name, array in stored.items()}
    save(out, replace(c, tensors=kept))


def _whole_numbers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file; those that `trim` turned into bytes become float32 again."""
    found = {k: v for k, v in tensors.items() if not k.startswith(SCALE)}
    for name in tensors.keys() - found.keys():
        kernel = name.removeprefix(SCALE)
        found[kernel] = torch.from_numpy(from_bytes(found[kernel].numpy(), tensors[name].numpy()))
    return found


def all_finite(tensors: dict[str, Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity."""
    return all(bool(torch.isfinite(t).all()) for t in tensors.values())
