"""Checkpoints: one safetensors file, written atomically, loaded strictly.

Keys: ``ema.<parameter>`` (always), and for resuming ``model.``, ``exp_avg.``, ``exp_avg_sq.``. The header carries
the stage, the step, the model's configuration and ``networks``: the top-level parts whose weights are real.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import TrainingError
from ..models.config import ModelConfig

PARTS = ("triple_encoder.vae", "triple_encoder.distortion", "triple_encoder.semantic", "triple_encoder.fuse",
         "latent_codec", "synthesis.estimate", "synthesis", "reconstruction.coarse", "reconstruction", "denoiser",
         "vae_decoder", "latent_")  # fmt: skip
"""Prefixes that checkpoints name in ``networks``; together they cover every parameter and buffer of SPRDiff.

A weight belongs to the first that fits: ``synthesis`` is the trunk without the head of the latent estimate,
``reconstruction`` the dual feature extraction without the coarse image. So a stage names just what it trained,
and a later checkpoint never brings back an older trunk.
"""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    stage: str
    step: int
    config: ModelConfig
    networks: tuple[str, ...]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix.``, without it."""
        return {k.removeprefix(prefix + "."): v for k, v in self.tensors.items() if k.startswith(prefix + ".")}


def part_of(name: str) -> str:
    """Which of PARTS a parameter belongs to; empty for a name that is none of the model's."""
    return next((p for p in PARTS if name.startswith(p)), "")


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a kill leaves the old file or the new one.

    Raises:
        TrainingError: the disk refused it.
    """
    meta = {
        "stage": checkpoint.stage,
        "step": str(checkpoint.step),
        "config": checkpoint.config.to_json(),
        "networks": json.dumps(checkpoint.networks),
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().contiguous() for k, v in checkpoint.tensors.items()}, partial, metadata=meta)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(f"{path}: cannot write the checkpoint ({error})") from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
        return Checkpoint(
            meta["stage"],
            int(meta["step"]),
            ModelConfig.from_json(meta["config"]),
            tuple(json.loads(meta["networks"])),
            tensors,
        )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this version ({error})") from error


def load_networks(model: nn.Module, checkpoint: Checkpoint, source: Path) -> tuple[str, ...]:
    """Copy the EMA weights of the checkpoint's networks into the model, strictly; returns their prefixes.

    Raises:
        TrainingError: a weight is missing, unknown or of another shape.
    """
    ema = checkpoint.part("ema")
    own = model.state_dict()
    wanted = {k for k in own if part_of(k) in checkpoint.networks}
    if missing := wanted - set(ema):
        raise TrainingError(f"{source}: lacks {len(missing)} weights, {sorted(missing)[0]} for one")
    if unknown := set(ema) - set(own):
        raise TrainingError(f"{source}: has {len(unknown)} unknown weights, {sorted(unknown)[0]} for one")
    for name in wanted:
        if own[name].shape != ema[name].shape:
            raise TrainingError(f"{source}: {name} has shape {tuple(ema[name].shape)}, not {tuple(own[name].shape)}")
        own[name].copy_(ema[name].to(own[name].dtype))
    return checkpoint.networks


def trim(path: Path, out: Path) -> None:
    """Rewrite a checkpoint as what a later leg needs: the EMA weights of its networks as fp16 (and the critic)."""
    c = load(path)
    ema = {f"ema.{k}": v.half() for k, v in c.part("ema").items() if part_of(k) in c.networks}
    extra = {f"extra.{k}": v.half() for k, v in c.part("extra").items() if k.startswith("critic.")}
    save(out, Checkpoint(c.stage, c.step, c.config, c.networks, {**ema, **extra}))


def all_finite(tensors: dict[str, Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    return all(bool(torch.isfinite(t).all()) for t in tensors.values())
