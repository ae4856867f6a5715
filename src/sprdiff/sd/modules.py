"""The new modules of preset `sd`, in plain torch: synthesis and the distortion-aware reconstruction module.

ŷ, means, hyper features ─ synthesis ─ f64 ─ f32 ─ f16 ─► ẑ [1/8] (latent estimate)
                                        │           ├────► coarse reconstruction x̃ ──┐ (an image already)
                                        │           └────────────────────────────────┤ dual feature extraction
                                        │                                            ├─► c_pix [1/8]
                                        └────────────────────────────────────────────┴─► c_sem [1/64]
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..models.blocks import LevelModulation, blocks, conv, down, up, zero
from ..models.latent_codec import Quantised
from .config import SDConfig


class SDSynthesis(nn.Module):
    """The synthesis: what is known exactly of y, and level [N] -> features at 1/64 and 1/16, latent estimate
    ẑ [N,Z,8h,8w].

    The means say where ŷ was predicted, and the hyper features how well; neither costs a bit more.
    """

    def __init__(self, config: SDConfig) -> None:
        super().__init__()
        c64, c32, c16 = config.synthesis
        self.enter = conv(2 * config.y_channels, c64, 3)
        self.enter_features = conv(config.hyper_features, c64, bias=False)
        self.modulate64 = LevelModulation(c64)
        self.body64 = blocks(c64, config.depth)
        self.up32 = up(c64, c32)
        self.body32 = blocks(c32, config.depth)
        self.up16 = up(c32, c16)
        self.modulate16 = LevelModulation(c16)
        self.body16 = blocks(c16, config.depth)
        c8 = config.estimate
        self.estimate = nn.Sequential(up(c16, c8), *blocks(c8, 2), conv(c8, config.vae_latent, 3))

    def forward(
        self, y_hat: Tensor, means: Tensor, features: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the features from ``y_hat`` and ``means``, unscaled, [N,Cy,h,w], and ``features`` of the
        hyper-latent, [N,Ch,h,w]."""
        x = self.enter(torch.cat([y_hat, means], 1)) + self.enter_features(features)
        f64 = self.body64(self.modulate64(x, level))
        f32 = self.body32(self.up32(f64))
        f16 = self.body16(self.modulate16(self.up16(f32), level))
        return f64, f16, self.estimate(f16)


class SDCoarse(nn.Module):
    """The coarse image: features [N,C,H/16,W/16] -> x̃ [N,3,H,W], about 0-1 and not clipped; it is trained
    for distortion."""

    def __init__(self, config: SDConfig) -> None:
        super().__init__()
        self.body16 = blocks(config.synthesis[2], 2)
        self.up = up(config.synthesis[2], config.coarse)
        self.body8 = blocks(config.coarse, 4)
        self.head = nn.Sequential(conv(config.coarse, 192, 3), nn.PixelShuffle(8))

    def forward(self, f16: Tensor) -> Tensor:
        out: Tensor = self.head(self.body8(self.up(self.body16(f16))))
        return 0.25 * out + 0.5


class SDPixelFeatures(nn.Module):
    """The pixel-level condition: x̃ [N,3,H,W] and f16 -> c_pix [N,P,H/8,W/8]."""

    def __init__(self, config: SDConfig) -> None:
        super().__init__()
        width = config.coarse
        self.enter = conv(3, width, 8, stride=8)
        self.join = up(config.synthesis[2], width)
        self.body = blocks(width, 2)
        self.leave = conv(width, config.pixel_condition)

    def forward(self, coarse: Tensor, f16: Tensor) -> Tensor:
        x = self.enter(4 * (coarse - 0.5)) + self.join(f16)
        out: Tensor = self.leave(self.body(x))
        return out


class SDSemanticFeatures(nn.Module):
    """The semantic-level condition: c_pix and f64 -> c_sem [N,D,H/64,W/64], one token for every 64x64 pixels.

    The projection to the width of text tokens starts at zero: tokens then give no key and no value, and what
    the UNet makes of them is untouched, while its values hand every position a gradient from the first step.
    """

    def __init__(self, config: SDConfig) -> None:
        super().__init__()
        width = config.semantic_condition
        self.down = nn.Sequential(
            down(config.pixel_condition, width // 4),
            nn.GELU(),
            down(width // 4, width // 2),
            nn.GELU(),
            down(width // 2, width),
        )
        self.join = conv(config.synthesis[0], width)
        self.body = blocks(width, 2)
        self.project = conv(width, config.cross_attention)
        zero(self.project)

    def forward(self, c_pix: Tensor, f64: Tensor) -> Tensor:
        out: Tensor = self.project(self.body(self.down(c_pix) + self.join(f64)))
        return out


class SDReconstruction(nn.Module):
    """The reconstruction: f64, f16 -> coarse image and, by dual feature extraction from it, both
    conditions."""

    def __init__(self, config: SDConfig) -> None:
        super().__init__()
        self.coarse = SDCoarse(config)
        self.pixel = SDPixelFeatures(config)
        self.semantic = SDSemanticFeatures(config)

    def conditions(self, coarse: Tensor, f64: Tensor, f16: Tensor) -> tuple[Tensor, Tensor]:
        """Extract both conditions; the coarse image is taken as given, and no gradient flows into it."""
        c_pix = self.pixel(coarse.detach().clamp(0, 1), f16)
        return c_pix, self.semantic(c_pix, f64)

    def forward(self, f64: Tensor, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coarse = self.coarse(f16)
        return (coarse, *self.conditions(coarse, f64, f16))


def tokens(c_sem: Tensor, pooled: Tensor | None = None) -> Tensor:
    """Turn c_sem [N,D,h,w] into tokens for cross-attention [N,1+h·w,D]; the first is the mean over the
    picture.

    Args:
        pooled: [N,D], that mean, where c_sem is one tile of a picture.
    """
    mean = c_sem.mean((2, 3)) if pooled is None else pooled
    return torch.cat([mean[:, None], c_sem.flatten(2).transpose(1, 2)], dim=1)


class SDReceived(NamedTuple):
    """The input of the denoiser: coarse image, latent estimate and both conditions."""

    coarse: Tensor
    z_est: Tensor
    c_pix: Tensor
    c_sem: Tensor


class SDDecoded(NamedTuple):
    """The results of a forward pass, for training."""

    quantised: Quantised
    reconstruction: SDReceived
