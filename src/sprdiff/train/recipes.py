"""The recipes of the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .stages.base import StageModule
from .stages.codec import CodecStage
from .stages.flow import FlowStage
from .stages.polish import PolishStage
from .stages.vae import VAEStage


@dataclass(frozen=True)
class Group:
    """Parameters of a stage that the optimiser treats with other settings.

    Attributes:
        prefix: the prefix of their names in the stage's module.
        lr: the factor on the stage's learning rate.
        betas: the betas of AdamW.
        weight_decay: the weight decay of AdamW.
    """

    prefix: str
    lr: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Stage:
    """The recipe of one stage.

    Attributes:
        build: a function that makes the stage's module from the model, `trains` and the settings.
        trains: prefixes of the parameters that are trained.
        networks: the parts of the model that are trained after the stage, see `checkpoints.PARTS`.
        needs: the parts that earlier stages must have trained.
        ema: the decay of the averaged weights.
        optimizer: adamw, soap or muon.
        betas: the betas of AdamW.
        groups: parameters that AdamW treats with other settings.
        latents: the arrays of a folder of latents that the stage learns from, in place of photographs.
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
        Stage(
            "polish",
            PolishStage,
            ("vae_decoder",),
            ("vae_decoder",),
            needs=(*CODEC_PARTS, "vae_decoder", "latent_", "flow", "reconstruction.pixel"),
            steps=1500,
            lr=3e-4,
            ema=0.99,
            betas=(0.9, 0.99),
            latents=("x", "coarse", "f16", "f32", "level"),
        ),
    )
}
