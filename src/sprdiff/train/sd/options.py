"""What training of preset `sd` is told beside the options of every preset, and what it loads for that."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import TrainingError, WeightsError
from ...evaluate.metrics.backbones import MissingWeightsError
from ...models.config import EXACT
from ...models.latent_codec import LatentCodec
from ...models.stored import load_entropy_arrays
from ...sd.config import SD, SDConfig
from ...sd.folder import read_trained, read_weights
from ..checkpoints import Checkpoint
from .losses import LpipsLoss
from .recipes import SD_PARTS

if TYPE_CHECKING:
    from ...sd.model import SDSPRDiff

log = logging.getLogger(__name__)

MOST_WORKERS = 16


def default_workers() -> int:
    """How many threads decode photographs where nobody says: one for each core, at most 16."""
    return min(MOST_WORKERS, os.cpu_count() or 1)


@dataclass(frozen=True)
class SDOptions:
    """What preset `sd` is told beside the options of every preset.

    Attributes:
        base, semantic: folders, or ids on the hub, at their revisions. variant: of the base's weights, such
            as fp16.
        distortion: file of a trained ELIC analysis transform; stage ``pixel`` then leaves it as it is.
        metric_weights: folder of VGG16 and the heads of LPIPS. lpips: whether to train on LPIPS at all.
        grad_checkpointing: compute activations again on the way back: a third more time, far less memory.
        adam8bit: optimiser states of 8 bits. shard: FSDP instead of DDP.
        workers: threads that decode photographs; None: see `default_workers`.
    """

    base: str | None = None
    semantic: str | None = None
    base_revision: str | None = None
    semantic_revision: str | None = None
    variant: str | None = None
    config: SDConfig = SD
    distortion: Path | None = None
    metric_weights: Path | None = None
    lpips: bool = True
    grad_checkpointing: bool = False
    adam8bit: bool = False
    shard: bool = False
    workers: int | None = None

    def with_config(self, given: Mapping[str, Any]) -> SDOptions:
        """The same with other fields of its configuration; None leaves a field as it is.

        Raises:
            TrainingError: a value is none that the field may have.
        """
        changes = {name: value for name, value in given.items() if value is not None}
        try:
            return replace(self, config=replace(self.config, **changes))
        except ValueError as error:
            raise TrainingError(str(error)) from error


def build_model(options: SDOptions) -> SDSPRDiff:
    """A model as training starts with it.

    Raises:
        TrainingError: no base or semantic model is named.
        WeightsError: one cannot be had or is of the wrong kind, or the distortion-oriented encoder does not
            fit.
    """
    if options.base is None or options.semantic is None:
        raise TrainingError("preset sd needs --base (stabilityai/sd-turbo, say) and --semantic (facebook/dinov2-base)")
    try:
        from ...sd.loading import load_base, load_semantic
        from ...sd.model import build
    except ImportError as error:
        if (error.name or "").startswith("sprdiff"):
            raise
        raise TrainingError(f"preset sd needs {error.name}: pip install 'sprdiff[train,sd]'") from error
    base = load_base(options.base, options.base_revision, variant=options.variant)
    model = build(base, load_semantic(options.semantic, options.semantic_revision), options.config)
    if options.distortion is not None:
        model.triple_encoder.distortion.load(options.distortion)
    if options.grad_checkpointing:
        model.gradient_checkpointing()
    return model


CHOSEN = ("lora_rank", "lora_alpha", "prediction", "passes", "lambda_range")
"""Fields of the configuration that change what weights mean, and not their shapes alone."""


def check_config(config: Any, checkpoint: Checkpoint, path: Path) -> None:
    """Weights that were trained under another configuration fit by shape and are wrong all the same.

    Raises:
        TrainingError: a field differs.
    """
    for name in CHOSEN:
        theirs, own = getattr(checkpoint.config, name), getattr(config, name, None)
        if theirs != own:
            option = name.replace("_", "-")
            raise TrainingError(f"{path}: was trained with {name} {theirs}, not {own}: give the same --{option}")


def load_trained(folder: Path) -> Checkpoint:
    """The folder of a trained SPRDiff as a checkpoint: what a published model is trained on from.

    Raises:
        WeightsError: it is incomplete, damaged or of another version.
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
    """LPIPS; None, with a warning, where it is given up on purpose.

    Raises:
        MissingWeightsError: the weights are nowhere, and nobody said to go on without.
    """
    if not options.lpips:
        log.warning("training without LPIPS: expect blur and poor texture")
        return None
    try:
        return LpipsLoss.load(options.metric_weights)
    except MissingWeightsError as error:
        raise MissingWeightsError(f"{error}; --no-lpips trains without") from error


def find_alex(folder: Path | None, device: torch.device) -> LpipsLoss | None:
    """LPIPS on AlexNet, with which validation measures; None where its weights are not at hand."""
    try:
        return LpipsLoss.load(folder, "alex").to(device)
    except WeightsError:
        log.info("validation goes without LPIPS-Alex, whose weights are not at hand")
        return None
