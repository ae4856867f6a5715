"""Triple encoder: three views of the image, brought to one grid (1/16) and fused.

        ┌─ VAEEncoder (frozen) of the image and of its blurred self ─┐
image ──┼─ DistortionEncoder ───────────────────────────────────────┼─► fused [N, fused, H/16, W/16]
        └─ EfficientNetLite0 (frozen, pretrained) ──────────────────┘
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import PixelConv, conv, down, res_blocks, zero
from .config import ModelConfig
from .efficientnet import EfficientNetLite0
from .vae import VAEEncoder

SEMANTIC_SCALE = 0.5
"""The factor that gives the features of EfficientNet-Lite0 about unit deviation."""


class DistortionEncoder(nn.Module):
    """Image [N,3,H,W] in 0-1 -> features [N,D,H/16,W/16]; at first trained for distortion alone.

    The last channels, `direct` of them, are linear functions of the pixels: without them the residual blocks
    must first learn to pass on the detail that high rates pay for.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c4, c8, c16 = config.distortion
        d8, d16 = config.distortion_blocks
        self.enter = PixelConv(3, c4, 4, 3)
        self.down8 = down(c4, c8)
        self.enter8 = PixelConv(3, c8, 8)
        self.body8 = res_blocks(c8, d8)
        self.down16 = down(c8, c16)
        self.body16 = res_blocks(c16, d16)
        self.direct = PixelConv(3, config.direct, 16) if config.direct else None

    def forward(self, x: Tensor) -> Tensor:
        # The standard deviation of pixels is about a quarter.
        centred = 4 * (x - 0.5)
        x8 = self.body8(self.down8(F.silu(self.enter(centred))) + self.enter8(centred))
        out: Tensor = self.body16(self.down16(x8))
        return out if self.direct is None else torch.cat([out, self.direct(centred)], 1)


def blurred(x: Tensor) -> Tensor:
    """Return the image's means over 8x8 pixels, interpolated; they stand for x̃ where it does not exist
    yet."""
    return F.interpolate(F.avg_pool2d(x, 8), scale_factor=8.0, mode="bilinear", align_corners=False)


class TripleEncoder(nn.Module):
    """The three encoders and their fusion: image [N,3,H,W] in 0-1 -> [N,F,H/16,W/16]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vae = VAEEncoder(config)
        self.distortion = DistortionEncoder(config)
        self.semantic = EfficientNetLite0() if config.semantic else None
        self.fuse_distortion = conv(config.distortion[2] + config.direct, config.fused)
        self.fuse_vae = nn.Conv2d(config.vae_latent, config.fused, 2, 2, bias=False)
        self.fuse_semantic = conv(config.semantic, config.fused, bias=False) if config.semantic else None
        # The distortion-oriented encoder is trained first; the others join later without disturbing it.
        zero(self.fuse_vae)
        if self.fuse_semantic is not None:
            zero(self.fuse_semantic)

    def forward(self, x: Tensor) -> Tensor:
        mean, _ = self.vae(x, blurred(x))
        semantic = self.semantic(x) if self.semantic is not None else None
        return self.fuse(self.distortion(x), mean, semantic)

    def fuse(self, distortion: Tensor, latent: Tensor | None, semantic: Tensor | None) -> Tensor:
        """Fuse the features of the distortion-oriented encoder at 1/16 with those of the other encoders,
        if there are any."""
        fused: Tensor = self.fuse_distortion(distortion)
        if latent is not None:
            fused = fused + self.fuse_vae(latent)
        if semantic is not None and self.fuse_semantic is not None:
            fused = fused + self.fuse_semantic(SEMANTIC_SCALE * semantic)
        return fused
