"""The recipe of every stage: frozen dataclasses, changed by ``dataclasses.replace``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .stages import CodecStage, StageModule


@dataclass(frozen=True)
class Stage:
    """One stage's recipe.

    Attributes:
        trains: prefixes of the parameters with gradients. networks: parts that are real after the stage.
        needs: parts that must come from earlier stages. soap: the optimiser is SOAP in place of AdamW.
        settings: arguments of the stage's module, such as the weights of its losses.
    """

    name: str
    build: Callable[..., StageModule]
    trains: tuple[str, ...]
    networks: tuple[str, ...]
    needs: tuple[str, ...] = ()
    steps: int = 10_000
    batch: int = 8
    crop: int = 192
    lr: float = 5e-4
    ema: float = 0.999
    soap: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


CODEC_PARTS = (
    "triple_encoder.distortion",
    "triple_encoder.fuse",
    "latent_codec",
    "synthesis",
    "reconstruction.coarse",
    "reconstruction.semantic",
)
STAGES = {
    stage.name: stage
    for stage in (Stage("codec", CodecStage, CODEC_PARTS, CODEC_PARTS, soap=True, steps=60_000, crop=256, batch=6),)
}
