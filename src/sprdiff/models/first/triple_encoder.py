"""Triple encoder: three pretrained views of the image, brought to one grid (1/16) and fused.

        ┌─ VAEEncoder (frozen) ── mean of the latent ─┐
image ──┼─ DistortionEncoder ──── features ───────────┼─ 1×1 ─► fused [N, fused, H/16, W/16]
        └─ SemanticEncoder ────── features ───────────┘
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..blocks import Stem, blocks, conv, down
from .config import FirstConfig


class VAEEncoder(nn.Module):
    """Image [N,3,H,W] in 0-1 -> mean and log variance of the latent, each [N,Z,H/16,W/16]."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        c8, c16 = config.vae_encoder
        self.body = nn.Sequential(Stem(c8), *blocks(c8, 1), down(c8, c16), *blocks(c16, 3))
        self.head = conv(c16, 2 * config.vae_latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.head(self.body(x)).chunk(2, dim=1)
        return mean, logvar.clamp(-12.0, 4.0)


class DistortionEncoder(nn.Module):
    """Image [N,3,H,W] in 0-1 -> features [N,D,H/16,W/16]; pretrained as the front of an MSE codec (stage ``pixel``)."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        c8, c16 = config.distortion
        d8, d16 = config.distortion_blocks
        self.body = nn.Sequential(Stem(c8), *blocks(c8, d8), down(c8, c16), *blocks(c16, d16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class SemanticEncoder(nn.Module):
    """Image [N,3,H,W] in 0-1 -> features [N,S,H/16,W/16]; distilled from a classifier (stage ``semantic``)."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        c8, c16 = config.semantic
        self.body = nn.Sequential(Stem(c8), *blocks(c8, 1), down(c8, c16), *blocks(c16, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class TripleEncoder(nn.Module):
    """The three encoders and their fusion: image [N,3,H,W] in 0-1 -> [N,F,H/16,W/16]."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.vae = VAEEncoder(config)
        self.distortion = DistortionEncoder(config)
        self.semantic = SemanticEncoder(config)
        width = config.distortion[1]
        self.fuse_distortion = conv(width, config.fused)
        self.fuse_others = conv(config.vae_latent + config.semantic[1], config.fused, bias=False)
        # The pixel codec knows the distortion features only: the others join without disturbing it.
        nn.init.zeros_(self.fuse_others.weight)

    def forward(self, x: Tensor) -> Tensor:
        latent, _ = self.vae(x)
        return self.fuse(self.distortion(x), latent, self.semantic(x))

    def fuse(self, distortion: Tensor, latent: Tensor, semantic: Tensor) -> Tensor:
        """Features of the three encoders, all at 1/16 -> fused features."""
        others: Tensor = self.fuse_others(torch.cat([latent, semantic], dim=1))
        fused: Tensor = self.fuse_distortion(distortion)
        return fused + others
