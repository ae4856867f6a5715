"""The conditional VAE: a latent for what the coarse image lacks, and the decoder that adds it.

    z = E(x, x̃), mean and deviation          x̂ = D(z, x̃) = x̃ + a residual

A latent that only describes what x̃ lacks needs less than half the rate for the same quality. The flow
samples it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import PixelConv, conv, down, res_blocks, up
from .config import ModelConfig

CONTRAST = 5.0
"""The factor by which the encoder sees x − x̃ multiplied, because it is small compared with x̃, and by which
the decoder's residual is divided."""
SHAPES = 0.5
"""How much of what a sample changes in large shapes is shown, see `calmed`; dev/LOG.md 100 has the choice."""
_REACH = 2


class VAEEncoder(nn.Module):
    """x and x̃ [N,3,H,W] in 0-1 -> mean and log deviation of z, each [N,Z,H/8,W/8]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c4, c8 = config.vae_encoder
        self.enter = PixelConv(6, c4, 4, 3)
        self.down = down(c4, c8)
        self.enter8 = PixelConv(6, c8, 8)
        self.body = res_blocks(c8, config.vae_encoder_blocks)
        self.leave = conv(c8, 2 * config.vae_latent, 3)

    def forward(self, x: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([CONTRAST * (x - coarse), coarse - 0.5], 1)
        h = self.body(self.down(F.silu(self.enter(seen))) + self.enter8(seen))
        mean, log_deviation = self.leave(F.silu(h)).chunk(2, 1)
        # At first z has much more signal than noise, or else the decoder never learns to use it.
        return 3 * mean, (log_deviation - 3).clamp(-6, 0.5)


class VAEDecoder(nn.Module):
    """z [N,Z,H/8,W/8] and x̃ [N,3,H,W] in 0-1 -> image [N,3,H,W], not clipped."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c8, c4, c2 = config.vae_decoder
        d8, d4 = config.vae_decoder_blocks
        self.enter, self.coarse8 = conv(config.vae_latent, c8, 3), PixelConv(3, c8, 8)
        self.body8 = res_blocks(c8, d8)
        self.up4, self.coarse4 = up(c8, c4), PixelConv(3, c4, 4)
        self.body4 = res_blocks(c4, d4)
        self.up2 = up(c4, c2)
        self.body2, self.leave = conv(c2, c2, 3), conv(c2, 12, 3)

    def forward(self, z: Tensor, coarse: Tensor) -> Tensor:
        seen = coarse - 0.5
        h = self.body8(self.enter(z) + self.coarse8(seen))
        h = self.body4(self.up4(F.silu(h)) + self.coarse4(seen))
        h = self.up2(F.silu(h))
        residual = F.pixel_shuffle(self.leave(F.silu(h + self.body2(F.silu(h)))), 2)
        return coarse + residual / CONTRAST


def calmed(image: Tensor, coarse: Tensor) -> Tensor:
    """Keep the texture of a sample and half of what it changes in larger shapes, [N,3,H,W].

    Two box filters of 5x5, a smoothing with a deviation of 2 pixels, split what a sample changes. The coarse
    image knows best about the smooth part, where a sample moves edges and faces at random: `SHAPES` of that
    part is kept.
    """
    low = image - coarse
    for size, padding in 2 * [((1, 2 * _REACH + 1), (0, _REACH)), ((2 * _REACH + 1, 1), (_REACH, 0))]:
        low = F.avg_pool2d(low, size, 1, padding, count_include_pad=False)
    return image - (1 - SHAPES) * low
