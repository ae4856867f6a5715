"""Synthesis and the distortion-aware reconstruction module: from ŷ to the coarse image and both conditions.

ŷ ─ synthesis ─ f32 ─ up ─ f16 ──► ẑ (latent estimate)
                 │          │
                 │          └─ CoarseReconstruction ─► x̃ ──┐ (an image already)
                 │                    f16 ─────────────────┤ dual feature extraction
                 │                                         ├─► c_pix  [1/16]  pixel-level condition
                 └─────────────────────────────────────────┴─► c_sem  [1/32]  semantic-level tokens
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks import LevelModulation, blocks, conv, down, up
from .config import FirstConfig


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
    """Features [N,C,H/16,W/16] -> coarse image x̃ [N,3,H,W], nominally in 0-1, not clipped; trained for distortion."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.up = up(config.synthesis[1], config.coarse)
        self.body = blocks(config.coarse, config.coarse_blocks)
        self.head = nn.Sequential(conv(config.coarse, 192, 3), nn.PixelShuffle(8))

    def forward(self, f16: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.up(f16)))
        return 0.25 * out + 0.5


class PixelFeatures(nn.Module):
    """x̃ [N,3,H,W] and f16 -> pixel-level condition c_pix [N,P,H/16,W/16]."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        width = config.pixel_condition
        self.enter = conv(3, width // 2, 8, stride=8)
        self.down = down(width // 2, width)
        self.join = conv(config.synthesis[1], width)
        self.body = blocks(width, 1)

    def forward(self, coarse: Tensor, f16: Tensor) -> Tensor:
        x = F.gelu(self.enter(coarse - 0.5))
        out: Tensor = self.body(self.down(x) + self.join(f16))
        return out


class SemanticFeatures(nn.Module):
    """c_pix and f32 -> semantic-level condition c_sem [N,S,H/32,W/32]: one token for every 32x32 pixels."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        width = config.semantic_condition
        self.down = down(config.pixel_condition, width)
        self.join = conv(config.synthesis[0], width)
        self.body = blocks(width, 1)

    def forward(self, c_pix: Tensor, f32: Tensor) -> Tensor:
        out: Tensor = self.body(self.down(c_pix) + self.join(f32))
        return out


class Reconstruction(NamedTuple):
    """What the receiver knows before the denoiser."""

    coarse: Tensor
    z_est: Tensor
    c_pix: Tensor
    c_sem: Tensor


class DistortionAwareReconstruction(nn.Module):
    """f32, f16 -> coarse image and, by dual feature extraction from it, both conditions."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.coarse = CoarseReconstruction(config)
        self.pixel = PixelFeatures(config)
        self.semantic = SemanticFeatures(config)

    def conditions(self, coarse: Tensor, f32: Tensor, f16: Tensor) -> tuple[Tensor, Tensor]:
        """Dual feature extraction; the coarse image is taken as given (no gradient into it)."""
        c_pix = self.pixel(coarse.detach().clamp(0, 1), f16)
        return c_pix, self.semantic(c_pix, f32)

    def forward(self, f32: Tensor, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coarse = self.coarse(f16)
        return (coarse, *self.conditions(coarse, f32, f16))


def receive(
    synthesis: Synthesis, module: DistortionAwareReconstruction, y_hat: Tensor, level: Tensor
) -> Reconstruction:
    """Everything from ŷ to the denoiser's inputs."""
    f32, f16, z_est = synthesis(y_hat, level)
    coarse, c_pix, c_sem = module(f32, f16)
    return Reconstruction(coarse, z_est, c_pix, c_sem)
