"""The recipe of every stage: frozen dataclasses, changed by ``dataclasses.replace``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .flow_stage import FlowStage
from .stages import CodecStage, StageModule
from .vae_stage import VAEStage


@dataclass(frozen=True)
class Group:
    """Parameters of a stage that have settings of their own in its optimiser, by the prefix of their names.

    Attributes:
        prefix: of the names in the stage's module.
        lr: factor on the stage's learning rate.
    """

    prefix: str
    lr: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Stage:
    """One stage's recipe.

    Attributes:
        trains: prefixes of the parameters with gradients. networks: parts that are real after the stage.
        needs: parts that must come from earlier stages.
        optimizer: adamw, soap or muon. betas: of adamw. groups: parameters that adamw treats in another way.
        latents: arrays of a folder of latents that the stage learns from, in place of photographs.
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
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    groups: tuple[Group, ...] = ()
    latents: tuple[str, ...] = ()
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
    for stage in (
        Stage("codec", CodecStage, CODEC_PARTS, CODEC_PARTS, optimizer="soap", steps=60_000),
        Stage(
            "vae",
            VAEStage,
            ("triple_encoder.vae", "vae_decoder"),
            ("triple_encoder.vae", "vae_decoder", "latent_"),
            needs=CODEC_PARTS,
            steps=20_000,
            lr=1e-3,
            ema=0.998,
            latents=("x", "coarse", "level"),
        ),
        Stage(
            "flow",
            FlowStage,
            ("flow", "reconstruction.pixel", "reconstruction.semantic"),
            ("flow", "reconstruction.pixel", "reconstruction.semantic"),
            needs=(*CODEC_PARTS, "triple_encoder.vae", "vae_decoder", "latent_"),
            steps=40_000,
            batch=32,
            lr=2e-3,
            optimizer="muon",
            latents=("coarse", "f16", "f32", "level", "mean", "deviation"),
        ),
    )
}
