"""Synthesis and the distortion-aware reconstruction module: from ŷ to the coarse image and both conditions.

   ┌──────────────── fine ─────────────────┐
ŷ, means, hyper features ─ synthesis ─ f32 ─ up ─ f16 ─► CoarseReconstruction ─► x̃ ─┐
                                        │          └────────────────────────────────┴─► c_pix, pixel-level
                                        └─────────────────────────────────────────────► c_sem, semantic-level
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import LevelModulation, PixelConv, conv, down, res_blocks, up
from .config import ModelConfig


class Synthesis(nn.Module):
    """What is known exactly about y, and the level [N] -> features at 1/32, [N,C,h,w], and at 1/16,
    [N,C',2h,2w].

    The means and the hyper features tell how well ŷ was predicted at each position; they cost no further
    bits.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c32, c16 = config.synthesis
        d32, d16 = config.synthesis_blocks
        self.enter = conv(2 * config.y_channels, c32, 3)
        self.enter_features = conv(config.hyper_features, c32, bias=False)
        self.modulate32 = LevelModulation(c32)
        self.body32 = res_blocks(c32, d32)
        self.up = up(c32, c16)
        self.fine = up(config.y_channels, c16) if config.fine else None
        self.modulate16 = LevelModulation(c16)
        self.body16 = res_blocks(c16, d16)

    def forward(self, y_hat: Tensor, means: Tensor, features: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features from `y_hat` and `means`, unscaled, [N,Cy,h,w], and `features`, [N,Ch,h,w]."""
        x = self.enter(torch.cat([y_hat, means], 1)) + self.enter_features(features)
        f32 = self.body32(self.modulate32(x, level))
        x = self.up(F.silu(f32))
        if self.fine is not None:
            x = x + self.fine(y_hat)
        return f32, self.body16(self.modulate16(x, level))


class CoarseReconstruction(nn.Module):
    """Features [N,C,H/16,W/16] -> the coarse image x̃ [N,3,H,W], about 0-1 and not clipped; trained for
    distortion."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c8, c4 = config.coarse
        self.up8 = up(config.synthesis[1], c8)
        self.body8 = res_blocks(c8, config.coarse_blocks)
        self.up4 = up(c8, c4)
        self.head = conv(c4, 48, 3)

    def forward(self, f16: Tensor) -> Tensor:
        x8 = self.body8(self.up8(F.silu(f16)))
        out = F.pixel_shuffle(self.head(F.silu(self.up4(F.silu(x8)))), 4)
        return 0.25 * out + 0.5


class PixelFeatures(nn.Module):
    """x̃ [N,3,H,W] and f16 -> the pixel-level condition c_pix [N,P,H/16,W/16]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.pixel_condition
        self.enter = PixelConv(3, width // 2, 8)
        self.down = down(width // 2, width)
        self.join = conv(config.synthesis[1], width)
        self.body = res_blocks(width, 1)

    def forward(self, coarse: Tensor, f16: Tensor) -> Tensor:
        out: Tensor = self.body(self.down(F.silu(self.enter(4 * (coarse - 0.5)))) + self.join(f16))
        return out


class SemanticFeatures(nn.Module):
    """f32 -> the semantic-level condition c_sem [N,S,H/32,W/32]: one token for every 32x32 pixels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.join = conv(config.synthesis[0], config.semantic_condition)
        self.body = res_blocks(config.semantic_condition, 1)

    def forward(self, f32: Tensor) -> Tensor:
        out: Tensor = self.body(self.join(F.silu(f32)))
        return out


class Reconstruction(NamedTuple):
    """What the receiver knows before the flow: the coarse image, not clipped, and the features that it was
    made from."""

    coarse: Tensor
    f32: Tensor
    f16: Tensor


class DistortionAwareReconstruction(nn.Module):
    """f32, f16 -> the coarse image and, by dual feature extraction, both conditions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.coarse = CoarseReconstruction(config)
        self.pixel = PixelFeatures(config)
        self.semantic = SemanticFeatures(config)

    def conditions(self, coarse: Tensor, f32: Tensor, f16: Tensor) -> tuple[Tensor, Tensor]:
        """Compute c_pix and c_sem from the coarse image in 0-1 and the features (dual feature extraction)."""
        return self.pixel(coarse, f16), self.semantic(f32)
