"""The pretrained parts of preset `sd`, which are loaded strictly from a folder or the hub.

This is the only file that imports diffusers, transformers and peft.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from safetensors import SafetensorError
from transformers import Dinov2Model, Dinov2WithRegistersModel
from transformers.utils import logging

from ..errors import WeightsError
from .checks import PATCH, NoiseSchedule, check_class, check_widths, read_schedule
from .hub import DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS, Source, brief, locate, variant_of

ADAPTER = "sprdiff"
LORA_TARGETS = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv",
    "conv1",
    "conv2",
    "conv_shortcut",
    "conv_out",
]
"""Ends of the names of the UNet's layers that get an adapter: those of StableCodec (conv_in is replaced
instead)."""


@dataclass(frozen=True)
class Base:
    """The parts of a Stable-Diffusion-class model that are used: AutoencoderKL, UNet2DConditionModel and the
    schedule."""

    vae: Any
    unet: Any
    schedule: NoiseSchedule
    source: Source


@dataclass(frozen=True)
class Semantic:
    """A DINOv2 backbone: Dinov2Model or Dinov2WithRegistersModel."""

    backbone: Any
    source: Source


def load_base(
    name: str, revision: str | None = None, pinned: Source | None = None, variant: str | None = None
) -> Base:
    """Load the VAE, the UNet and the schedule of a model of the class of Stable Diffusion 1.x or 2.x, in
    float32.

    Args:
        name: folder as `save_pretrained` of a pipeline writes it, or id on the hub.
        revision: of the hub; None: its main branch.
        pinned: what the files must be, by their hashes.
        variant: of the weights, such as ``fp16``; None: the plain ones, or those of `pinned`.

    Raises:
        WeightsError: not found, incomplete, not safetensors, of another kind, or other files than pinned.
    """
    parts = [("vae", DIFFUSERS_WEIGHTS), ("unet", DIFFUSERS_WEIGHTS)]
    source = locate(name, revision, parts, ["scheduler/scheduler_config.json"], pinned, variant)
    vae_config = check_class(source, "vae", "_class_name", ("AutoencoderKL",))
    unet_config = check_class(source, "unet", "_class_name", ("UNet2DConditionModel",))
    check_widths(source, vae_config, unet_config)
    schedule = read_schedule(source)
    vae = _load(AutoencoderKL, source, "vae")
    unet = _load(UNet2DConditionModel, source, "unet")
    return Base(vae, unet, schedule, source)


def load_semantic(
    name: str, revision: str | None = None, pinned: Source | None = None, variant: str | None = None
) -> Semantic:
    """Load a DINOv2 backbone, with or without registers, in float32; arguments and errors are those of
    `load_base`."""
    source = locate(name, revision, [("", TRANSFORMERS_WEIGHTS)], pinned=pinned, variant=variant)
    config = check_class(source, "", "model_type", ("dinov2", "dinov2_with_registers"))
    if config.get("patch_size") != PATCH:
        raise WeightsError(
            f"{name} has patches of {config.get('patch_size')} pixels but {PATCH} are needed: "
            "only then do they fall on the grid of the other encoders"
        )
    kind = Dinov2WithRegistersModel if config["model_type"] == "dinov2_with_registers" else Dinov2Model
    return Semantic(_load(kind, source, ""), source)


def _load(kind: Any, source: Source, sub: str) -> Any:
    """Load a network strictly, because both libraries only warn of weights that are missing."""
    folder = source.folder / sub
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
        "variant": variant_of(source),
    }
    try:
        with _quiet():
            model, told = kind.from_pretrained(folder, torch_dtype=torch.float32, **options)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise WeightsError(f"{source.name}: {sub or 'the model'} cannot be loaded: {brief(error)}") from error
    if wrong := sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]])):
        raise WeightsError(
            f"{source.name}: {sub or 'the model'} lacks {len(wrong)} weights, such as {wrong[0]}"
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries in a ``with`` block: none of them writes to the terminal, and `_load` checks by
    itself."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def with_adapters(unet: Any, rank: int, alpha: int) -> Any:
    """Add low-rank adapters to the layers of a UNet that `LORA_TARGETS` names, in place; return the UNet."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=LORA_TARGETS)
    return inject_adapter_in_model(config, unet, adapter_name=ADAPTER)
