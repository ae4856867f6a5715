"""Latent compression: y and z, their gains by level, and the integer networks of the entropy model.

fused ─ analysis, fine analysis ─ y ── hyper-analysis ─ z
                   │                     │ · gain.z(level), quantised against z_mean(level)
                   │                     ▼
                   │              hyper-synthesis (integer) ─ h
                   │ · gain.y(level)                          │
                   ▼                                          ▼
             step (pass, channel group):  context (integer)(ŷ decoded so far, h, level) ─ mean, table index
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..format.constants import INDEX_SCALE, KNOTS
from .blocks import blocks, conv, down, level_weights, res_blocks
from .config import LatentSizes
from .integer_networks import (
    ACTIVATION_UNIT,
    ContextStep,
    HyperSynthesis,
    clamp_ste,
    exact_dtype,
    exact_products,
    round_ste,
)
from .passes import CodingStep, known_groups, known_inputs, walk
from .rate import noisy_bits, rounded_bits, sigma_of

Z_SCALE = 8.0
"""The scale of the learned means and table indices of z, so that one learning rate suits them and the
weights."""


class Quantised(NamedTuple):
    """The result of one pass through the latent codec.

    Attributes:
        y_hat, means: ŷ and the means with which its symbols were coded, without their gain; both are known
            exactly, [N,Cy,h,w].
        features: the features of the hyper-latent, known exactly, too, [N,Ch,h,w].
        y_bits, z_bits: the bits of each image, [N].
    """

    y_hat: Tensor
    means: Tensor
    features: Tensor
    y_bits: Tensor
    z_bits: Tensor


class LatentCodec(nn.Module):
    """Fused features [N,F,H/16,W/16] -> y [N,Cy,H/32,W/32], z [N,Cz,H/64,W/64], and their coding at a level.

    The grids of a configuration with other ``y_downs`` and ``z_ratio`` are coarser accordingly.
    """

    def __init__(self, config: LatentSizes) -> None:
        super().__init__()
        self.config = config
        self.analysis, self.hyper_analysis = _analysis(config), _hyper_analysis(config)
        # The trunk has too few channels at the grid of y to pass on all detail of a busy place.
        self.fine_analysis = down(config.fused, config.fine) if config.fine else None
        self.hyper_synthesis = HyperSynthesis(config)
        self.context = nn.ModuleList(
            ContextStep(config, sum(config.groups[:known]), config.groups[group])
            for (_, group), known in zip(config.order, known_groups(config.order), strict=True)
        )
        self.forget_unknown()
        # At the end of training the gains rise by about 0.7 per unit of log λ.
        low, high = config.lambda_range
        slope = torch.linspace(-0.5, 0.5, KNOTS)[:, None] * math.log(high / low)
        cy, cz = config.y_channels, config.z_channels
        self.y_log_gain = nn.Parameter(math.log(2.0) + 0.7 * slope.expand(KNOTS, cy).clone())
        self.z_log_gain = nn.Parameter(math.log(2.0) + 0.5 * slope.expand(KNOTS, cz).clone())
        self.z_mean = nn.Parameter(torch.zeros(KNOTS, cz))
        self.z_index = nn.Parameter(torch.full((KNOTS, cz), 25.0 / INDEX_SCALE / Z_SCALE))

    @torch.no_grad()
    def forget_unknown(self) -> None:
        """Set the weights of inputs that a step cannot know to zero; they stay zero and cost no bytes."""
        for number, step in enumerate(self.context):
            assert isinstance(step, ContextStep)
            weight, known = step.layer0.weight, known_inputs(self.config, number)
            weight[:, : known.numel()].mul_(known.to(weight.device))

    def analyse(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and z without their gains. Neither depends on the level, so rate control analyses only
        once."""
        y = self.analysis(fused)
        if self.fine_analysis is not None:
            y = torch.cat([y, self.fine_analysis(fused)], 1)
        return y, self.hyper_analysis(self._whole_blocks(y) if self.config.z_ratio > 2 else y)

    def _whole_blocks(self, y: Tensor) -> Tensor:
        """Repeat the edge of y until there are whole blocks, because a position of z stands for a block of y.

        At a ratio of 2, images that are padded to 64 pixels never need this, and the exported graph does
        without.
        """
        rows, columns = (-side % self.config.z_ratio for side in y.shape[2:])
        return F.pad(y, (0, columns, 0, rows), mode="replicate") if rows or columns else y

    def y_gain(self, level: Tensor) -> Tensor:
        """Return the factor on y before quantisation, [N,Cy,1,1]."""
        return torch.exp(at_level(level, self.y_log_gain))[:, :, None, None]

    def z_gain(self, level: Tensor) -> Tensor:
        """Return the factor on z before quantisation, [N,Cz,1,1]."""
        return torch.exp(at_level(level, self.z_log_gain))[:, :, None, None]

    def z_prior(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and table index of z by channel, each [N,Cz,1,1]."""
        mean = round_ste(at_level(level, self.z_mean) * Z_SCALE * ACTIVATION_UNIT) / ACTIVATION_UNIT
        index = at_level(level, self.z_index) * Z_SCALE * INDEX_SCALE
        index = round_ste(clamp_ste(index, 0.0, self.config.tables - 1.0))
        return mean[:, :, None, None], index[:, :, None, None]

    def forward(self, y: Tensor, z: Tensor, level: Tensor, *, hard: bool = False) -> Quantised:
        """Quantise the latents and count their bits.

        The decoder sees rounded values (straight-through). Without `hard`, the bits are those of values with
        uniform noise, whose expectation is differentiable (Minnen & Singh, ICIP 2020); training starts with
        them. With noise, a silent channel costs 0.06 bits and more. With `hard`, the bits are those of the
        rounded values, as in a file (`rounded_bits`).
        """
        # Compiled code uses the flags that are set when it runs, and must not set them.
        exact = nullcontext() if torch.compiler.is_compiling() else exact_products()
        with torch.autocast(y.device.type, enabled=False), exact:
            # In half precision the integer networks would round to other integers.
            given = torch.promote_types(y.dtype, torch.float32)
            kind = torch.promote_types(given, exact_dtype(y.device))
            coded = self._code(y.to(kind), z.to(kind), level.to(kind), hard=hard)
            return Quantised(*(part.to(given) for part in coded))

    def _code(self, y: Tensor, z: Tensor, level: Tensor, *, hard: bool) -> Quantised:
        gain = self.y_gain(level)
        mean, index = self.z_prior(level)
        z_scaled = z * self.z_gain(level)
        z_hat = round_ste(z_scaled - mean) + mean
        z_bits = self._bits(z_scaled - mean, index, hard=hard).sum((1, 2, 3))
        features = self.hyper_synthesis(z_hat, level)[:, :, : y.shape[2], : y.shape[3]]

        def code(step: CodingStep) -> tuple[Tensor, Tensor, Tensor]:
            residual = step.y - step.mean
            bits = (self._bits(residual, step.table, hard=hard) * step.inside).sum(1, True)
            # round(y - mu) + mu: only y passes a gradient to the decoder. Beyond the picture later steps see
            # zeros.
            rounded = step.y + (round_ste(residual) + step.mean - step.y).detach()
            return rounded * step.inside, step.mean, bits

        y_hat, means, bits = walk(self.config, self.context, y * gain, features, level, code)
        return Quantised(y_hat / gain, means / gain, features, bits.sum((1, 2, 3)), z_bits)

    def _bits(self, residual: Tensor, index: Tensor, *, hard: bool) -> Tensor:
        return (rounded_bits if hard else noisy_bits)(residual, sigma_of(index, self.config))


def at_level(level: Tensor, knots: Tensor) -> Tensor:
    """Interpolate between knots at the given levels, [N] and [9,C] -> [N,C]; computed in float64."""
    return (level_weights(level.double()) @ knots.double()).to(level.dtype)


def _analysis(config: LatentSizes) -> nn.Sequential:
    """Return the layers that turn fused features into y, but for its fine channels."""
    trunk = config.trunk
    entry = [down(config.fused, trunk), *(down(trunk, trunk) for _ in range(config.y_downs - 1))]
    stack = res_blocks if config.dense else blocks
    leave = conv(trunk, config.y_channels - config.fine)
    return nn.Sequential(*entry, *stack(trunk, config.analysis_blocks), leave)


def _hyper_analysis(config: LatentSizes) -> nn.Sequential:
    """Return the layers that turn y into z."""
    half, stack = config.trunk // 2, res_blocks if config.dense else blocks
    shrink = [down(half, half) for _ in range(config.z_ratio.bit_length() - 1)]
    activation = nn.SiLU() if config.dense else nn.GELU()
    return nn.Sequential(
        conv(config.y_channels, half, 3), activation, *shrink, *stack(half, 1), conv(half, config.z_channels)
    )
