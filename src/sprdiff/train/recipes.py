"""The recipe of every stage: frozen dataclasses, changed by ``dataclasses.replace``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .checkpoints import PARTS
from .refine import RefineStage
from .stages import CodecStage, DenoiseStage, PixelStage, SemanticStage, StageModule, VAEStage


@dataclass(frozen=True)
class Stage:
    """One stage's recipe.

    Attributes:
        trains: prefixes of the parameters with gradients. networks: parts that are real after the stage.
        needs: parts that must come from earlier stages. soap: the optimiser is SOAP in place of AdamW.
        betas: of AdamW; against a critic a long memory of gradients ends in oscillation.
    """

    name: str
    build: Callable[..., StageModule]
    trains: tuple[str, ...]
    networks: tuple[str, ...]
    needs: tuple[str, ...] = ()
    teacher: bool = False
    steps: int = 10_000
    batch: int = 8
    crop: int = 192
    lr: float = 5e-4
    ema: float = 0.999
    soap: bool = False
    betas: tuple[float, float] = (0.9, 0.999)


_PIXEL_PARTS = (
    "triple_encoder.distortion",
    "triple_encoder.fuse",
    "latent_codec",
    "synthesis",
    "reconstruction.coarse",
)
_DENOISE_PARTS = ("synthesis.estimate", "reconstruction", "denoiser")

STAGES = {
    stage.name: stage
    for stage in (
        Stage("vae", VAEStage, ("triple_encoder.vae", "vae_decoder"), ("triple_encoder.vae", "vae_decoder", "latent_")),
        Stage(
            "pixel",
            PixelStage,
            ("triple_encoder.distortion", "triple_encoder.fuse_distortion", "latent_codec", "synthesis.enter",
             "synthesis.modulate", "synthesis.body", "synthesis.up", "reconstruction.coarse"),
            _PIXEL_PARTS,
            soap=True,
        ),
        Stage("semantic", SemanticStage, ("triple_encoder.semantic",), ("triple_encoder.semantic",), teacher=True),
        Stage(
            "denoise",
            DenoiseStage,
            ("synthesis.estimate", "reconstruction.pixel", "reconstruction.semantic", "denoiser"),
            _DENOISE_PARTS,
            needs=("triple_encoder.vae", "vae_decoder", "latent_", *_PIXEL_PARTS),
            steps=3000,
        ),
        Stage(
            "codec",
            CodecStage,
            ("triple_encoder.distortion", "triple_encoder.fuse", "latent_codec", "synthesis", "reconstruction",
             "denoiser"),
            (*_PIXEL_PARTS, *_DENOISE_PARTS),
            needs=("triple_encoder.vae", "triple_encoder.semantic", "vae_decoder", "latent_", *_PIXEL_PARTS,
                   *_DENOISE_PARTS),
            soap=True,
        ),
        Stage(
            "refine",
            RefineStage,
            ("reconstruction.pixel", "reconstruction.semantic", "denoiser", "vae_decoder"),
            ("reconstruction", "denoiser", "vae_decoder"),
            needs=PARTS,
            teacher=True,
            batch=4,
            soap=True,
        ),
    )
}  # fmt: skip
