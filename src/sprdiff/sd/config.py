"""The sizes of preset `sd`: a frozen dataclass, which is stored in every checkpoint and every trained
folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ..models.config import CHECKERBOARD, LatentSizes, Passes

PREDICTIONS = ("clean", "base")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


def check_precision(word: str) -> str:
    """Return the same word.

    Raises:
        ValueError: it is none of ``auto`` and `PRECISIONS`.
    """
    if word not in ("auto", *PRECISIONS):
        raise ValueError(f"precision must be auto or one of {', '.join(PRECISIONS)}, not {word}")
    return word


@dataclass(frozen=True)
class SDConfig(LatentSizes):
    """Channel counts of what is trained, and the widths of the pretrained parts that it is trained on.

    Grids: 1/8 the VAE latent and c_pix, 1/16 ELIC, DINOv2 and the fusion, 1/64 ``y`` and c_sem, 1/256 ``z``.

    Attributes:
        vae_latent, semantic, cross_attention: widths read off the pretrained parts: channels of the VAE's
            latent, of DINOv2's tokens, and of the text tokens that c_sem replaces.
        distortion: inner and outer channels of ELIC's analysis transform.
        synthesis: channels at 1/64, 1/32 and 1/16; estimate, coarse: at 1/8, of ẑ's head and of the coarse
            image.
        depth: blocks at each grid of the synthesis.
        lambda_range: weight of the distortion against bits per pixel at levels 0 and 255. With this loss
            StableCodec's published rates, 0.005 to 0.035 bits per pixel on Kodak, lie inside of it
            (docs/sd.md).
        lora_rank, lora_alpha: of the UNet's low-rank adapters, whose output is multiplied by alpha / rank.
        prediction: what the UNet's output is taken for. ``clean``: a correction of ẑ towards the clean
            latent, whose errors are never multiplied; ``base``: what the base model predicts, see
            `denoiser.SDDenoiser`.
    """

    y_downs: ClassVar[int] = 2
    z_ratio: ClassVar[int] = 4
    dense: ClassVar[bool] = False

    preset: str = "sd"
    preset_id: int = 2
    lambda_range: tuple[float, float] = (0.25, 6.0)
    vae_latent: int = 4
    semantic: int = 768
    cross_attention: int = 1024
    distortion: tuple[int, int] = (192, 320)
    fused: int = 320
    trunk: int = 512
    analysis_blocks: int = 3
    y_channels: int = 320
    z_channels: int = 160
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)
    passes: Passes = CHECKERBOARD
    hyper_hidden: int = 320
    hyper_features: int = 192
    context_hidden: int = 256
    synthesis: tuple[int, int, int] = (512, 512, 384)
    depth: int = 4
    estimate: int = 192
    coarse: int = 192
    pixel_condition: int = 64
    semantic_condition: int = 512
    lora_rank: int = 32
    lora_alpha: int = 8
    prediction: str = "clean"

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(
                f"the prediction must be one of {', '.join(PREDICTIONS)}, not {self.prediction!r}"
            )
        super().__post_init__()


SD = SDConfig()
"""The preset; the widths of pretrained parts are those of SD-2.x or SD-Turbo and of DINOv2-base until parts
are loaded."""

SMALL = dataclasses.replace(
    SD,
    distortion=(8, 16),
    fused=16,
    trunk=16,
    y_channels=12,
    z_channels=4,
    groups=(4, 8),
    hyper_hidden=16,
    hyper_features=8,
    context_hidden=16,
    synthesis=(16, 16, 16),
    depth=1,
    estimate=8,
    coarse=8,
    pixel_condition=8,
    semantic_condition=16,
    lora_rank=2,
)
"""Trained parts that are small enough for tests and rehearsals; the widths of pretrained parts follow from
these parts."""
