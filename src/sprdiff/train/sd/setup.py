"""What training of preset `sd` loads: the model with its pretrained parts, trained folders, LPIPS."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...common.extras import needed
from ...errors import TrainingError, WeightsError
from ...evaluate.metrics.backbones import MissingWeightsError
from ...models.config import EXACT
from ...models.latent_codec import LatentCodec
from ...models.stored import load_entropy_arrays
from ...sd.folder import read_trained, read_weights
from ..checkpoints import Checkpoint
from .losses import LpipsLoss
from .options import SDOptions
from .recipes import SD_PARTS

if TYPE_CHECKING:
    from ...sd.model import SDSPRDiff

log = logging.getLogger(__name__)

MOST_WORKERS = 16
CHOSEN = ("lora_rank", "lora_alpha", "prediction", "passes", "lambda_range")
"""Fields of the configuration that change what weights mean without changing their shapes, or beside them."""


def default_workers() -> int:
    """Return how many threads decode photographs by default: one for each core, at most 16."""
    return min(MOST_WORKERS, os.cpu_count() or 1)


def build_model(options: SDOptions) -> SDSPRDiff:
    """Build the model that training starts with.

    Raises:
        TrainingError: no base or no semantic model is given.
        WeightsError: one of them cannot be loaded or is of the wrong kind, or ELIC's encoder does not fit.
    """
    if options.base is None or options.semantic is None:
        raise TrainingError(
            "preset sd needs --base (stabilityai/sd-turbo, say) and --semantic (facebook/dinov2-base)"
        )
    with needed("train,sd", TrainingError, "preset sd"):
        from ...sd.loading import load_base, load_semantic
        from ...sd.model import build
    base = load_base(options.base, options.base_revision, variant=options.variant)
    model = build(base, load_semantic(options.semantic, options.semantic_revision), options.config)
    if options.distortion is not None:
        model.triple_encoder.distortion.load(options.distortion)
    if options.grad_checkpointing:
        model.gradient_checkpointing()
    return model


def check_config(config: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Refuse weights that were trained with another configuration: they may fit by shape and yet be wrong.

    Raises:
        TrainingError: a field differs.
    """
    for name in CHOSEN:
        theirs, own = getattr(checkpoint.config, name), getattr(config, name, None)
        if theirs != own:
            option = name.replace("_", "-")
            raise TrainingError(
                f"{path} was trained with {name} {theirs}, not {own}: give the same --{option}"
            )


def load_trained(folder: Path) -> Checkpoint:
    """Load the folder of a trained model as a checkpoint, so that published weights can be trained further.

    Raises:
        WeightsError: it is incomplete or damaged, or has another version.
    """
    trained = read_trained(folder)
    arrays, weights = read_weights(trained)
    codec = LatentCodec(trained.config)
    load_entropy_arrays(codec, arrays)
    exact = {f"latent_codec.{k}": v for k, v in codec.state_dict().items()}
    tensors = {f"ema.{k}": v for k, v in exact.items() if k.startswith(EXACT)}
    tensors |= {f"ema.{k}": torch.from_numpy(v.astype(np.float32)) for k, v in weights.items()}
    sources = {part: dict(source.files) for part, source in trained.sources.items()}
    return Checkpoint("export", 0, trained.config, SD_PARTS, tensors, sources)


def load_lpips(options: SDOptions) -> LpipsLoss | None:
    """Load LPIPS; return None, with a warning, if the options switch it off.

    Raises:
        MissingWeightsError: its weights cannot be found, and the options do not switch it off.
    """
    if not options.lpips:
        log.warning("training without LPIPS: expect blur and poor texture")
        return None
    try:
        return LpipsLoss.load(options.metric_weights)
    except MissingWeightsError as error:
        raise MissingWeightsError(f"{error}; --no-lpips trains without") from error


def find_alex(folder: Path | None, device: torch.device) -> LpipsLoss | None:
    """Load LPIPS on AlexNet, with which validation measures; return None if its weights cannot be found."""
    try:
        return LpipsLoss.load(folder, "alex").to(device)
    except WeightsError:
        log.info("validation does not measure LPIPS-Alex, whose weights cannot be found")
        return None
