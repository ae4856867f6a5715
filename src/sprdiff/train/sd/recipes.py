"""The recipes of the stages of preset `sd`."""

from __future__ import annotations

from typing import Any

from ..recipes import Group, Stage
from .stages import SDCodecStage, SDJointStage, SDPixelStage, SDRefineStage

RATES = (0.005, 0.0075, 0.01, 0.0138, 0.0203, 0.028, 0.04)
"""The rates in bits per pixel at which validation interpolates its figures: those that the preset is made
for."""

_PIXEL = (
    "triple_encoder.distortion",
    "triple_encoder.fuse",
    "latent_codec",
    "synthesis",
    "reconstruction.coarse",
)
_DUAL = ("reconstruction.pixel", "reconstruction.semantic")
SD_PARTS = (*_PIXEL, "synthesis.estimate", *_DUAL, "denoiser")
"""The parts of `checkpoints.PARTS` that hold trained weights; all others are pretrained."""

_DISCRIMINATOR = Group("discriminator.", lr=2.0, betas=(0.0, 0.99), weight_decay=0.0)
"""A discriminator's optimum moves with every step of the receiver, and momentum points to where it was.
Therefore its Adam has no momentum, and twice the receiver's learning rate (StyleGAN-T; two time-scale rule of
Heusel et al. 2017)."""
_BESIDE_ONE = (0.5, 0.99)
"""The receiver's own betas beside a discriminator."""
_SYNTHESIS = ("synthesis.enter", "synthesis.modulate", "synthesis.body", "synthesis.up")
"""The synthesis without the head of the clean latent's estimate."""
_ENTROPY_PATH = tuple(
    Group(f"model.{prefix}", lr=0.1, betas=_BESIDE_ONE)
    for prefix in ("triple_encoder.fuse", "latent_codec", "reconstruction.coarse", *_SYNTHESIS)
)

_ALL = ("triple_encoder.fuse", "latent_codec", "synthesis", "reconstruction", "denoiser")
"""All that is trained but the distortion-oriented encoder."""
_ADVERSARIAL: dict[str, Any] = {"batch": 4, "crop": 512, "lr": 5e-5, "betas": _BESIDE_ONE}

SD_STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "pixel",
            SDPixelStage,
            (
                "triple_encoder.distortion",
                "triple_encoder.fuse_distortion",
                "latent_codec",
                *_SYNTHESIS,
                "reconstruction.coarse",
            ),
            _PIXEL,
            steps=150_000,
            crop=512,
            lr=1e-4,
        ),
        Stage("codec", SDCodecStage, _ALL, SD_PARTS, needs=_PIXEL, steps=120_000, crop=512, lr=1e-4),
        Stage(
            "refine",
            SDRefineStage,
            ("synthesis.estimate", *_DUAL, "denoiser"),
            ("synthesis.estimate", *_DUAL, "denoiser"),
            needs=SD_PARTS,
            steps=40_000,
            groups=(_DISCRIMINATOR,),
            **_ADVERSARIAL,
        ),
        Stage(
            "joint",
            SDJointStage,
            _ALL,
            SD_PARTS,
            needs=SD_PARTS,
            steps=30_000,
            groups=(_DISCRIMINATOR, *_ENTROPY_PATH),
            **_ADVERSARIAL,
        ),
    )
}
