"""Time-conditioned denoiser on VAE latents, guided by both conditions; used in one step.

    z_t ─┐                ┌──────── × denoiser_blocks ────────┐
         ├─ 1×1 ─ + c_pix ┤ modulate(t) ─ ConvBlock ─(cross-attention to c_sem)─ ... ├─ 1×1 ─ v
    c_pix┘                └───────────────────────────────────┘
    z0 = z_t − t·v + residual(c_pix)

The path it is trained on runs from the clean latent z0 to the decoder's estimate with noise:
z_t = (1 − t)·z0 + t·(ẑ + s·ε), a rectified flow (Liu et al., ICLR 2023) whose source is centred on what the file
says rather than on zero; the network predicts its velocity v = ẑ + s·ε − z0. One step takes t = 1 and ε = 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ConvBlock, conv, zero
from .config import ModelConfig

NOISE_SCALE = 0.5
"""s above, in units of the latent's standard deviation (about 1)."""

_FREQUENCIES = 32


def time_features(t: Tensor) -> Tensor:
    """Sinusoidal features of t in [0, 1]: [N] -> [N, 64]."""
    steps = torch.arange(_FREQUENCIES, device=t.device, dtype=t.dtype)
    angles = t[:, None] * torch.exp(steps * (math.log(200.0) / _FREQUENCIES))[None, :] * math.pi
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class WindowCrossAttention(nn.Module):
    """Queries at 1/16 attend to the 3x3 tokens at 1/32 around their own: [N,C,2h,2w], [N,S,h,w] -> [N,C,2h,2w].

    Windowed, so its cost is linear in pixels and a tile sees what the whole image sees. Tokens outside are zeros.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.width = config.heads, config.attention // config.heads
        self.query = conv(config.denoiser, config.attention)
        self.key = conv(config.semantic_condition, config.attention, bias=False)
        self.value = conv(config.semantic_condition, config.attention, bias=False)
        self.project = conv(config.attention, config.denoiser)
        # One bias for each place in the 2x2 cell and each of the 9 tokens: attention knows where it looks.
        self.position = nn.Parameter(torch.zeros(config.heads, 4, 9))
        zero(self.project)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        n, _, height, width = x.shape
        h, w = tokens.shape[2:]
        query = self.query(x).view(n, self.heads, self.width, h, 2, w, 2).permute(0, 3, 5, 1, 4, 6, 2)
        query = query.reshape(n, h, w, self.heads, 4, self.width)
        key = self._windows(self.key(tokens))
        value = self._windows(self.value(tokens))
        logits = query @ key.transpose(-1, -2) / math.sqrt(self.width) + self.position
        out = (logits.softmax(-1) @ value).view(n, h, w, self.heads, 2, 2, self.width)
        out = out.permute(0, 3, 6, 1, 4, 2, 5).reshape(n, self.heads * self.width, height, width)
        result: Tensor = self.project(out)
        return x + result

    def _windows(self, tokens: Tensor) -> Tensor:
        """[N,A,h,w] -> [N,h,w,heads,9,A/heads]."""
        n, _, h, w = tokens.shape
        padded = F.pad(tokens, (1, 1, 1, 1))
        shifted = [padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        stacked = torch.stack(shifted, dim=2).view(n, self.heads, self.width, 9, h, w)
        return stacked.permute(0, 4, 5, 1, 3, 2)


class DenoiserBlock(nn.Module):
    """ConvBlock modulated by time, then cross-attention where the block has it."""

    def __init__(self, config: ModelConfig, time_width: int, *, attend: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(time_width, 2 * config.denoiser)
        self.block = ConvBlock(config.denoiser)
        self.attention = WindowCrossAttention(config) if attend else None
        zero(self.modulation)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        scale, shift = self.modulation(time)[:, :, None, None].chunk(2, dim=1)
        x = x + self.block.branch(x * (1 + scale) + shift)
        return x if self.attention is None else self.attention(x, tokens)


class Denoiser(nn.Module):
    """One step of denoising: z_t [N,Z,2h,2w], t [N] in (0,1], c_pix [N,P,2h,2w], c_sem [N,S,h,w] -> z0 [N,Z,2h,2w]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.denoiser
        self.time = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU())
        self.enter = conv(config.vae_latent, width)
        self.condition = conv(config.pixel_condition, width)
        self.condition_mid = conv(config.pixel_condition, width)
        self.blocks = nn.ModuleList(
            DenoiserBlock(config, width, attend=i % 2 == 0) for i in range(config.denoiser_blocks)
        )
        self.leave = conv(width, config.vae_latent)
        self.residual = conv(config.pixel_condition, config.vae_latent)
        zero(self.condition_mid)
        zero(self.residual)

    def forward(self, z_t: Tensor, t: Tensor, c_pix: Tensor, c_sem: Tensor) -> Tensor:
        time = self.time(time_features(t))
        x = self.enter(z_t) + self.condition(c_pix)
        for i, block in enumerate(self.blocks):
            if i == len(self.blocks) // 2:
                x = x + self.condition_mid(c_pix)
            x = block(x, time, c_sem)
        z0: Tensor = z_t - t[:, None, None, None] * self.leave(x) + self.residual(c_pix)
        return z0


def noised(z0: Tensor, z_est: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Point at time t [N] on the path from z0 to ẑ + s·ε."""
    t = t[:, None, None, None]
    return (1 - t) * z0 + t * (z_est + NOISE_SCALE * noise)
