"""The sizes of the first generation's networks, as stored in its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..config import LatentSizes


@dataclass(frozen=True)
class FirstConfig(LatentSizes):
    """Channel counts and depths of the first generation.

    Grids: 1/4 and 1/8 are the stems, 1/16 the VAE latent and the denoiser, 1/32 ``y``, 1/64 ``z``.
    """

    y_downs: ClassVar[int] = 1
    z_ratio: ClassVar[int] = 2
    dense: ClassVar[bool] = False

    preset: str = "tiny"
    preset_id: int = 1
    vae_latent: int = 32
    vae_encoder: tuple[int, int] = (64, 160)
    vae_decoder: tuple[int, int, int] = (192, 128, 64)
    vae_decoder_blocks: tuple[int, int, int] = (2, 3, 3)
    vae_decoder_head: int = 24
    noise: int = 4
    distortion: tuple[int, int] = (96, 192)
    distortion_blocks: tuple[int, int] = (2, 3)
    semantic: tuple[int, int] = (48, 128)
    fused: int = 192
    trunk: int = 256
    analysis_blocks: int = 3
    y_channels: int = 96
    z_channels: int = 32
    groups: tuple[int, ...] = (16, 16, 24, 40)
    hyper_hidden: int = 192
    hyper_features: int = 96
    context_hidden: int = 128
    synthesis: tuple[int, int] = (256, 192)
    synthesis_blocks: tuple[int, int] = (3, 3)
    coarse: int = 96
    coarse_blocks: int = 2
    pixel_condition: int = 128
    semantic_condition: int = 128
    denoiser: int = 192
    denoiser_blocks: int = 6
    attention: int = 64
    heads: int = 4

    @property
    def lambda_range(self) -> tuple[float, float]:
        """The weight of the squared error at levels 0 and 255."""
        return 0.7, 60.0
