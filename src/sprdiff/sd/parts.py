"""The pretrained parts of preset `sd` as its own modules: the VAE's two halves, DINOv2, and the triple
encoder.

x ─┬─ AutoencoderKL's encoder, frozen ── 4 at 1/8 ───┐
   ├─ DINOv2, frozen ─────────────── 768 at 1/16 ───┼─ fusion ─ 320 at 1/16
   └─ ELIC's analysis transform ──── 320 at 1/16 ───┘
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.blocks import conv, zero
from .checks import PATCH
from .config import SDConfig
from .elic import ElicAnalysis

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def like(x: Tensor, module: nn.Module) -> Tensor:
    """Return the input in the dtype of a pretrained part, which is that of its last parameter."""
    *_, last = module.parameters()
    return x.to(last.dtype)


class SDVAEEncoder(nn.Module):
    """AutoencoderKL's encoder: image [N,3,H,W] in 0-1 -> scaled mean and log variance, each [N,Z,H/8,W/8]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quantise = vae.quant_conv if vae.quant_conv is not None else nn.Identity()
        self.shift, self.scale = float(vae.config.shift_factor or 0), float(vae.config.scaling_factor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.quantise(self.encoder(like(2 * x - 1, self.encoder))).to(x.dtype)
        mean, logvar = moments.chunk(2, dim=1)
        return (mean - self.shift) * self.scale, logvar + 2 * math.log(self.scale)


class SDVAEDecoder(nn.Module):
    """AutoencoderKL's decoder: scaled latent [N,Z,H/8,W/8] -> image [N,3,H,W], nominally in 0-1."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.unquantise = vae.post_quant_conv if vae.post_quant_conv is not None else nn.Identity()
        self.shift, self.scale = float(vae.config.shift_factor or 0), float(vae.config.scaling_factor)

    def forward(self, z0: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.unquantise(like(z0 / self.scale + self.shift, self.decoder)))
        return 0.5 * out.to(z0.dtype) + 0.5


class SDSemanticEncoder(nn.Module):
    """DINOv2: image [N,3,H,W] in 0-1 -> features [N,S,H/16,W/16].

    The image is resized by 14/16, so that patches of 14 pixels are the grid 1/16; class and register tokens,
    which belong to no place, are dropped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone(pixel_values=self._resized(x)).last_hidden_state
        return self._map(out, x)

    def levels(self, x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return the features after some layers (0: embeddings), each [N,S,H/16,W/16]; gradients reach the
        image."""
        states = self.backbone(pixel_values=self._resized(x), output_hidden_states=True).hidden_states
        return [self._map(states[layer], x) for layer in layers]

    def _resized(self, x: Tensor) -> Tensor:
        size = [side // 16 * PATCH for side in x.shape[2:]]
        small = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
        return like((small - self.mean) / self.std, self.backbone)

    @staticmethod
    def _map(states: Tensor, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // 16, x.shape[3] // 16
        patches = states[:, -rows * columns :]
        return patches.transpose(1, 2).reshape(states.shape[0], -1, rows, columns).to(x.dtype)


class SDTripleEncoder(nn.Module):
    """The three encoders and their fusion at 1/16: image [N,3,H,W] in 0-1 -> [N,F,H/16,W/16]."""

    def __init__(self, config: SDConfig, vae: Any, backbone: Any) -> None:
        super().__init__()
        self.vae = SDVAEEncoder(vae)
        self.distortion = ElicAnalysis(config.distortion)
        self.semantic = SDSemanticEncoder(backbone)
        self.fuse_distortion = conv(config.distortion[1], config.fused)
        self.fuse_others = conv(4 * config.vae_latent + config.semantic, config.fused, bias=False)
        # The pixel codec knows the distortion features only: the others join without disturbing it.
        zero(self.fuse_others)

    def forward(self, x: Tensor) -> Tensor:
        latent, _ = self.vae(x)
        return self.fuse(self.distortion(x), latent, self.semantic(x))

    def fuse(self, distortion: Tensor, latent: Tensor, semantic: Tensor) -> Tensor:
        """Fuse the features at 1/16, the VAE's latent at 1/8 and the tokens at 1/16."""
        others: Tensor = self.fuse_others(torch.cat([F.pixel_unshuffle(latent, 2), semantic], dim=1))
        fused: Tensor = self.fuse_distortion(distortion)
        return fused + others
