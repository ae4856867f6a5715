"""Synthesis and coarse reconstruction of the first generation, which refinement on the sender runs.

ŷ ─ Synthesis ─ features at 1/16 ─ CoarseReconstruction ─► x̃
"""

from __future__ import annotations

from torch import Tensor, nn

from ..blocks import LevelModulation, blocks, conv, up
from .config import FirstConfig
from .weights_only import PixelFeatures, SemanticFeatures


class Synthesis(nn.Module):
    """ŷ [N,Cy,h,w] and level [N] -> features at 1/32, features at 1/16, latent estimate ẑ [N,Z,2h,2w]."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        c32, c16 = config.synthesis
        d32, d16 = config.synthesis_blocks
        self.enter = conv(config.y_channels, c32, 3)
        self.modulate32 = LevelModulation(c32)
        self.body32 = blocks(c32, d32)
        self.up = up(c32, c16)
        self.modulate16 = LevelModulation(c16)
        self.body16 = blocks(c16, d16)
        self.estimate = conv(c16, config.vae_latent)

    def forward(self, y_hat: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f32 = self.body32(self.modulate32(self.enter(y_hat), level))
        f16 = self.body16(self.modulate16(self.up(f32), level))
        return f32, f16, self.estimate(f16)


class CoarseReconstruction(nn.Module):
    """Features [N,C,H/16,W/16] -> coarse image x̃ [N,3,H,W], nominally in 0-1, not clipped."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.up = up(config.synthesis[1], config.coarse)
        self.body = blocks(config.coarse, config.coarse_blocks)
        self.head = nn.Sequential(conv(config.coarse, 192, 3), nn.PixelShuffle(8))

    def forward(self, f16: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.up(f16)))
        return 0.25 * out + 0.5


class DistortionAwareReconstruction(nn.Module):
    """The coarse reconstruction, and the weights of both conditions."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.coarse = CoarseReconstruction(config)
        self.pixel = PixelFeatures(config)
        self.semantic = SemanticFeatures(config)
