"""The diffusion model: velocity of the VAE's latent, guided by the coarse image and by both conditions.

    z_t = (1 − t)·z + t·ε,  v = ε − z     (flow matching: Lipman et al., ICLR 2023; Liu et al., ICLR 2023)

                    t, step size, level ─ embedding ──┐ shifts every block
    z_t ─ 1/8 ──────────────────────────────── + ─ 1/8 ─► v
     + x̃, c_pix └ 1/16 ──────────────── + ─ 1/16 ┘
                 + c_pix └ 1/32 (+ c_sem) ┘

The normalisation looks at one position only: a tile must give what the whole image gives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..format.constants import LEVELS
from .blocks import PixelConv, conv, down, up
from .config import STEP_SIZES, ModelConfig

_WAVES = 16


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position, [N,C,H,W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # autocast would make it float32
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            normal = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, 1e-4)
            return normal.permute(0, 3, 1, 2)


class FlowBlock(nn.Module):
    """A residual block of two dense 3x3 convolutions; the embedding shifts the values between them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first, self.second = conv(channels, channels, 3), conv(channels, channels, 3)
        self.shift = nn.Linear(width, channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(F.silu(self.norm(x))) + self.shift(embedding)[:, :, None, None]
        out: Tensor = self.second(F.silu(h))
        return x + out


Conditions = tuple[Tensor, Tensor, Tensor]


class Flow(nn.Module):
    """Standardised z_t [N,Z,4h,4w], time, stride and level [N], conditions -> velocity [N,Z,4h,4w]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c8, c16, c32 = config.flow
        n8, n16, n32, last8 = config.flow_blocks
        width = config.flow_embedding
        self.embed = nn.Sequential(nn.Linear(2 * _WAVES + 1, width), nn.SiLU(), nn.Linear(width, width))
        self.stride = nn.Parameter(torch.zeros(len(STEP_SIZES), width))
        self.coarse, self.pixel8 = PixelConv(3, c8, 8), conv(config.pixel_condition, c8)
        self.pixel16 = conv(config.pixel_condition, c16)
        self.semantic32 = conv(config.semantic_condition, c32)
        self.enter, self.down16, self.down32 = conv(config.vae_latent, c8, 3), down(c8, c16), down(c16, c32)
        self.up16, self.up8 = up(c32, c16), up(c16, c8)
        self.body8, self.body16, self.body32, self.end16, self.end8 = (
            nn.ModuleList(FlowBlock(channels, width) for _ in range(count))
            for channels, count in ((c8, n8), (c16, n16 - n16 // 2), (c32, n32), (c16, n16 // 2), (c8, last8))
        )
        self.norm, self.leave = ChannelNorm(c8), conv(c8, config.vae_latent, 3)
        nn.init.zeros_(self.leave.weight)

    def condition(self, coarse: Tensor, c_pix: Tensor, c_sem: Tensor) -> Conditions:
        """Return the features at 1/8, 1/16 and 1/32 that do not change from step to step."""
        at8 = self.coarse(4 * (coarse - 0.5)) + F.interpolate(self.pixel8(c_pix), scale_factor=2.0)
        return at8, self.pixel16(c_pix), self.semantic32(c_sem)

    def embedding(self, time: Tensor, stride: Tensor, level: Tensor) -> Tensor:
        """Embed the time in 0-1 (1 is noise), the stride as an index into `STEP_SIZES` and the level in
        0-255, each [N]."""
        waves = torch.exp(torch.arange(_WAVES, device=time.device, dtype=time.dtype) * (5.0 / (_WAVES - 1)))
        angles = time[:, None] * waves
        around = (level / (LEVELS - 1) - 0.5)[:, None] * 4
        known = torch.arange(len(STEP_SIZES), device=time.device, dtype=time.dtype)
        shares = (1 - (stride[:, None] - known).abs()).clamp(min=0)
        return F.silu(self.embed(torch.cat([angles.sin(), angles.cos(), around], 1)) + shares @ self.stride)

    def forward(
        self, z: Tensor, time: Tensor, stride: Tensor, level: Tensor, conditions: Conditions
    ) -> Tensor:
        at8, at16, at32 = conditions
        e = self.embedding(time, stride, level)
        h8 = _run(self.body8, self.enter(z) + at8, e)
        h16 = _run(self.body16, self.down16(h8) + at16, e)
        h32 = _run(self.body32, self.down32(h16) + at32, e)
        h16 = _run(self.end16, h16 + self.up16(h32), e)
        h8 = _run(self.end8, h8 + self.up8(h16), e)
        out: Tensor = self.leave(F.silu(self.norm(h8)))
        return out


def _run(stack: nn.ModuleList, x: Tensor, embedding: Tensor) -> Tensor:
    for block in stack:
        x = block(x, embedding)
    return x
