"""VAE decoder: from the latent to what the base image lacks.

z0 ─ 1/16 ─ up ─ 1/8 ─ up ─ 1/4 ─ head (1/2) ─ + base ─► x̂
                  ▲          ▲
        base image x̃, noise

The autoencoder's base is grey; the codec's is the coarse image, so that a flat area needs nothing at all and edges are
sharpened where they are. Noise is the only source of texture that does not repeat with the grid: without it a
critic's wish for detail ends in stripes with the period of the upsampling (dev/LOG.md 29).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import blocks, conv, up, zero
from .config import ModelConfig

NOISE_STRIDE = 4
"""Pixels per position of the noise."""


class Head(nn.Module):
    """Features [N,C,H/4,W/4] -> image [N,3,H,W]: tones at 1/4, enlarged, and one channel of detail for all colours.

    Detail comes by way of 1/2: straight from 1/4 each of the 16 pixels of a cell is made by weights of its own, and
    textures show the cells; two small layers at 1/2 see across them. It is grey: so few bytes tell nothing of coloured
    texture, and what is invented there is seen at once.
    """

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.tones = conv(cin, 3, 3)
        self.detail = nn.Sequential(
            conv(cin, 4 * width),
            nn.PixelShuffle(2),
            nn.GELU(),
            conv(width, width, 3),
            nn.GELU(),
            conv(width, 4, 3),
            nn.PixelShuffle(2),
        )

    def forward(self, x: Tensor) -> Tensor:
        tones = F.interpolate(self.tones(x), scale_factor=4.0, mode="bilinear", align_corners=False)
        out: Tensor = tones + self.detail(x)
        return out


class VAEDecoder(nn.Module):
    """Latent z0 [N,Z,H/16,W/16], base [N,3,H,W] and noise [N,noise,H/4,W/4] -> image [N,3,H,W], not clipped."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c16, c8, c4 = config.vae_decoder
        d16, d8, d4 = config.vae_decoder_blocks
        self.enter = conv(config.vae_latent, c16)
        self.body16 = blocks(c16, d16)
        self.up8 = up(c16, c8)
        self.base8 = conv(3, c8, 8, stride=8)
        self.body8 = blocks(c8, d8)
        self.up4 = up(c8, c4)
        self.base4 = conv(3, c4, 12, stride=4, padding=4)
        self.noise = conv(config.noise, c4, bias=False)
        self.body4 = blocks(c4, d4)
        self.head = Head(c4, config.vae_decoder_head)
        self.noise_channels = config.noise
        zero(self.noise)

    def forward(self, z0: Tensor, base: Tensor, noise: Tensor) -> Tensor:
        centred = 4 * (base - 0.5)  # pixels have a standard deviation near a quarter
        x = self.body16(self.enter(z0))
        x = self.body8(self.up8(x) + self.base8(centred))
        x = self.body4(self.up4(x) + self.base4(centred) + self.noise(noise))
        out: Tensor = base + 0.25 * self.head(x)
        return out


def no_noise(base: Tensor, channels: int) -> Tensor:
    """Zeros in place of the noise for a base image."""
    n, _, height, width = base.shape
    return torch.zeros(n, channels, height // NOISE_STRIDE, width // NOISE_STRIDE, device=base.device)
