"""Latent compression: y and z, their gains by level, and the integer networks of the entropy model.

    fused ─ analysis ─ y ── hyper-analysis ─ z
                       │                     │ · gain.z(level), quantise against z_mean(level)
                       │                     ▼
                       │              hyper-synthesis (integer) ─ h
                       │ · gain.y(level)                          │
                       ▼                                          ▼
                 step (pass, channel group):  context (integer)(ŷ decoded so far, h, level) ─ mu, table index

The integer networks are trained here with the rounding they are run with: weights are multiples of 2^-12,
activations of 2^-8, so a float64 forward of this file equals the integer path bit for bit (Ballé et al.,
"Integer Networks for Data Compression with Latent-Variable Models", ICLR 2019).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import blocks, conv, down, hats
from .config import FRACTION_BITS, KNOTS, LatentSizes

WEIGHT_UNIT = 2.0**12
ACTIVATION_UNIT = 2.0**FRACTION_BITS
ACTIVATION_MAX = 16383 / ACTIVATION_UNIT
MEAN_MAX = 32767 / ACTIVATION_UNIT
INDEX_SCALE = 16.0
Z_SCALE = 8.0
"""Scales of learned means and indices, so that one rate of learning suits them and the weights alike."""
TABLES = 64
SIGMA_MIN, SIGMA_MAX = 0.1, 32.0
TAIL = 2.0**-12
LAMBDA_MIN, LAMBDA_MAX = 0.7, 60.0


def lambda_of(level: Tensor) -> Tensor:
    """Weight of the squared error (images in 0-1) against bits per pixel at a level in 0-255: geometric 0.7 to 60."""
    return LAMBDA_MIN * torch.exp(level / 255 * math.log(LAMBDA_MAX / LAMBDA_MIN))


def exact_dtype(device: torch.device) -> torch.dtype:
    """In which precision the integer networks run in training on a device.

    On a GPU convolutions of float32 are computed with the 10 bits of TF32 unless that is switched off, and would round
    to other integers; float64 is out of reach of TF32, of autocast and of a compiler's choices. It costs little on
    grids this small. On a CPU float32 is what it says.
    """
    return torch.float64 if device.type == "cuda" else torch.float32


def at_level(level: Tensor, knots: Tensor) -> Tensor:
    """What lies between the knots at the given levels, [N] and [9,C] -> [N,C]; computed in float64."""
    return (hats(level.double()) @ knots.double()).to(level.dtype)


def round_ste(x: Tensor) -> Tensor:
    """Nearest integer, halves up (the integer path's rule); the gradient passes straight through."""
    return x + (torch.floor(x + 0.5) - x).detach()


class _Clamp(torch.autograd.Function):
    """Clamp whose gradient passes inside the range, and outside where descent leads back into it.

    A gradient that always passed would let the index of a silent channel drift without bound, and the channel
    could never speak again (dev/LOG.md, 2026-11-23).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = (low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (grad,), (low, high) = ctx.saved_tensors, grads, ctx.range
        passes = ((x >= low) | (grad < 0)) & ((x <= high) | (grad > 0))
        return grad * passes, None, None


def clamp_ste(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp with a gradient that can always lead back into the range and never further out."""
    clamped: Tensor = _Clamp.apply(x, low, high)
    return clamped


class IntegerDense(nn.Module):
    """One layer of an integer network as a convolution over gathered inputs.

    ``taps`` = 9 gathers the 3x3 neighbourhood (zeros outside) of the first ``spatial`` input channels; ``point``
    further channels are taken at the position itself and ``KNOTS`` constants carry the level.
    """

    def __init__(self, spatial: int, point: int, out: int, *, level: bool) -> None:
        super().__init__()
        self.spatial, self.point, self.level = spatial, point, level
        width = 9 * spatial + point + (KNOTS if level else 0)
        self.weight = nn.Parameter(torch.randn(out, width) / math.sqrt(max(width, 1)))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, around: Tensor | None, here: Tensor | None, level: Tensor | None) -> Tensor:
        limit = 32767 / WEIGHT_UNIT
        given = around if around is not None else here
        assert given is not None
        kind = given.dtype  # the precision of the input is that of the sums
        weight = round_ste(self.weight.clamp(-limit, limit) * WEIGHT_UNIT).to(kind) / WEIGHT_UNIT
        bias = round_ste(self.bias * WEIGHT_UNIT * ACTIVATION_UNIT).to(kind) / (WEIGHT_UNIT * ACTIVATION_UNIT)
        split = 9 * self.spatial
        total: Tensor | None = None
        if around is not None and self.spatial:
            kernel = weight[:, :split].reshape(-1, 3, 3, self.spatial).permute(0, 3, 1, 2)
            total = F.conv2d(around, kernel, bias, padding=1)
        if here is not None and self.point:
            part = F.conv2d(
                here, weight[:, split : split + self.point, None, None], None if total is not None else bias
            )
            total = part if total is None else total + part
        assert total is not None
        if level is not None and self.level:
            total = total + (hats(level).to(kind) @ weight[:, split + self.point :].T)[:, :, None, None]
        return total


def hidden(x: Tensor) -> Tensor:
    """The integer networks' activation: clip to [0, 64), 8 fractional bits."""
    return round_ste(clamp_ste(F.relu(x), 0.0, ACTIVATION_MAX) * ACTIVATION_UNIT) / ACTIVATION_UNIT


class HyperSynthesis(nn.Module):
    """ẑ [N,Cz,h,w] and level [N] -> features [N,Ch,r·h,r·w] for the context networks, r = z_ratio. Integer network."""

    def __init__(self, config: LatentSizes) -> None:
        super().__init__()
        self.layer0 = IntegerDense(config.z_channels, 0, config.hyper_hidden, level=True)
        self.ratio = config.z_ratio
        self.layer1 = IntegerDense(0, config.hyper_hidden, self.ratio**2 * config.hyper_features, level=False)

    def forward(self, z_hat: Tensor, level: Tensor) -> Tensor:
        x = hidden(self.layer1(None, hidden(self.layer0(z_hat, None, level)), None))
        n, c, h, w = x.shape
        r = self.ratio
        x = x.view(n, r, r, c // r**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // r**2, r * h, r * w)


class ContextStep(nn.Module):
    """Mean and table index of one channel group in one pass, from what is decoded so far. Integer network."""

    def __init__(self, config: LatentSizes, seen: int, group: int) -> None:
        super().__init__()
        self.seen, self.group = seen, group
        self.layer0 = IntegerDense(seen, config.hyper_features, config.context_hidden, level=True)
        self.layer1 = IntegerDense(0, config.context_hidden, config.context_hidden, level=False)
        self.layer2 = IntegerDense(0, config.context_hidden, 2 * group, level=False)
        with torch.no_grad():
            self.layer2.weight.mul_(0.1)
            self.layer2.bias[group:] = 30 / INDEX_SCALE

    def forward(self, y_hat: Tensor, features: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        x = hidden(self.layer0(y_hat[:, : self.seen], features, level))
        x = self.layer2(None, hidden(self.layer1(None, x, None)), None)
        mean = round_ste(x[:, : self.group] * ACTIVATION_UNIT) / ACTIVATION_UNIT
        index = round_ste(clamp_ste(x[:, self.group :] * INDEX_SCALE, 0.0, TABLES - 1.0))
        return clamp_ste(mean, -MEAN_MAX, MEAN_MAX), index


def sigma_of(index: Tensor) -> Tensor:
    """Standard deviation of the table with (possibly fractional) ``index``: geometric from 0.1 to 32."""
    return SIGMA_MIN * torch.exp(index * (math.log(SIGMA_MAX / SIGMA_MIN) / (TABLES - 1)))


def table_bits(residual: Tensor, sigma: Tensor) -> Tensor:
    """Bits of a unit-width bin at ``residual`` under the base tables (bitstream/tables.py): a Gaussian and a faint
    wide one, which also keeps a gradient where the narrow one has none."""
    distance = residual.abs()
    mass = (1 - TAIL) * _bin_mass(distance, sigma) + TAIL * _bin_mass(distance, 3 * sigma + 0.3)
    return -torch.log2(mass + 2.5e-7)


def rounded_bits(residual: Tensor, sigma: Tensor) -> Tensor:
    """Bits of the rounded residual. Its table learns from the symbol that is really coded; the residual itself gets
    the slope bits(r + 1/2) - bits(r - 1/2), which is what noise would give it on average, without the noise."""
    with torch.no_grad():
        symbol = torch.floor(residual + 0.5)
        slope = table_bits(residual + 0.5, sigma) - table_bits(residual - 0.5, sigma)
    return table_bits(symbol, sigma) + (residual - residual.detach()) * slope


def _bin_mass(distance: Tensor, sigma: Tensor) -> Tensor:
    return torch.special.ndtr((0.5 - distance) / sigma) - torch.special.ndtr((-0.5 - distance) / sigma)


class Quantised(NamedTuple):
    """Result of one pass through the latent codec; bits are per image, [N]."""

    y_hat: Tensor
    y_bits: Tensor
    z_bits: Tensor


class LatentCodec(nn.Module):
    """Fused features [N,F,H/16,W/16] -> y [N,Cy,H/32,W/32], z [N,Cz,H/64,W/64], and their coding at a level.

    The grids of a configuration with other ``y_downs`` and ``z_ratio`` are coarser accordingly.
    """

    def __init__(self, config: LatentSizes) -> None:
        super().__init__()
        self.config = config
        trunk, cy, cz = config.trunk, config.y_channels, config.z_channels
        entry = [down(config.fused, trunk), *(down(trunk, trunk) for _ in range(config.y_downs - 1))]
        self.analysis = nn.Sequential(*entry, *blocks(trunk, config.analysis_blocks), conv(trunk, cy))
        half = trunk // 2
        shrink = [down(half, half) for _ in range(config.z_ratio.bit_length() - 1)]
        self.hyper_analysis = nn.Sequential(
            conv(cy, half, 3), nn.GELU(), *shrink, *blocks(half, 1), conv(half, cz)
        )  # fmt: skip
        self.hyper_synthesis = HyperSynthesis(config)
        seen = [sum(config.groups[:g]) for g in range(len(config.groups))]
        self.context = nn.ModuleList(
            [ContextStep(config, n, g) for n, g in zip(seen, config.groups, strict=True)]
            + [ContextStep(config, cy, g) for g in config.groups]
        )
        # λ spans a factor e^4.5 over the levels; gains end near a slope of 0.7 per unit of log λ.
        slope = torch.linspace(-0.5, 0.5, KNOTS)[:, None] * 4.5
        self.y_log_gain = nn.Parameter(math.log(2.0) + 0.7 * slope.expand(KNOTS, cy).clone())
        self.z_log_gain = nn.Parameter(math.log(2.0) + 0.5 * slope.expand(KNOTS, cz).clone())
        self.z_mean = nn.Parameter(torch.zeros(KNOTS, cz))
        self.z_index = nn.Parameter(torch.full((KNOTS, cz), 25.0 / INDEX_SCALE / Z_SCALE))

    def analyse(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Unscaled latents; neither depends on the level, so rate control analyses once."""
        y = self.analysis(fused)
        return y, self.hyper_analysis(self._whole_blocks(y) if self.config.z_ratio > 2 else y)

    def _whole_blocks(self, y: Tensor) -> Tensor:
        """A position of z stands for a block of y: what is missing of the last ones repeats the edge.

        At a ratio of 2 images padded to 64 pixels never miss any, and the exported graph stays free of it.
        """
        rows, columns = (-side % self.config.z_ratio for side in y.shape[2:])
        return F.pad(y, (0, columns, 0, rows), mode="replicate") if rows or columns else y

    def y_gain(self, level: Tensor) -> Tensor:
        """Factor on y before quantisation, [N,Cy,1,1]."""
        return torch.exp(at_level(level, self.y_log_gain))[:, :, None, None]

    def z_gain(self, level: Tensor) -> Tensor:
        """Factor on z before quantisation, [N,Cz,1,1]."""
        return torch.exp(at_level(level, self.z_log_gain))[:, :, None, None]

    def z_prior(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and table index of z by channel, each [N,Cz,1,1]."""
        mean = round_ste(at_level(level, self.z_mean) * Z_SCALE * ACTIVATION_UNIT) / ACTIVATION_UNIT
        index = round_ste(clamp_ste(at_level(level, self.z_index) * Z_SCALE * INDEX_SCALE, 0.0, TABLES - 1.0))
        return mean[:, :, None, None], index[:, :, None, None]

    def forward(self, y: Tensor, z: Tensor, level: Tensor, *, hard: bool = False) -> Quantised:
        """Quantise and price the latents.

        The decoder sees rounded values (straight-through); bits are those of the values with uniform noise
        added, whose expectation is differentiable (Minnen & Singh, ICIP 2020): the way to start. Noise prices a
        silent channel at 0.06 bits and more; with ``hard`` bits are those of the rounded values, what a file
        really costs, see `rounded_bits`.

        Returns: unscaled ŷ [N,Cy,h,w] and the bits of each image.
        """
        with torch.autocast(y.device.type, enabled=False):
            # In half precision the integer networks would round to other integers than they are run with.
            given = torch.promote_types(y.dtype, torch.float32)
            kind = torch.promote_types(given, exact_dtype(y.device))
            return Quantised(
                *(part.to(given) for part in self._code(y.to(kind), z.to(kind), level.to(kind), hard=hard))
            )

    def _code(self, y: Tensor, z: Tensor, level: Tensor, *, hard: bool) -> Quantised:
        gain = self.y_gain(level)
        mean, index = self.z_prior(level)
        z_scaled = z * self.z_gain(level)
        z_residual = round_ste(z_scaled - mean)
        z_bits = self._bits(z_scaled - mean, index, hard=hard).sum((1, 2, 3))
        features = self.hyper_synthesis(z_residual + mean, level)[:, :, : y.shape[2], : y.shape[3]]
        y_hat, bits = self._code_y(y * gain, features, level, hard=hard)
        return Quantised(y_hat / gain, bits, z_bits)

    def _code_y(self, y: Tensor, features: Tensor, level: Tensor, *, hard: bool) -> tuple[Tensor, Tensor]:
        masks = checkerboard(y)
        parts = [torch.zeros_like(y[:, s : s + g]) for s, g in self.group_slices()]
        bits = y.new_zeros(y.shape[0])
        for step, network in enumerate(self.context):
            number, group = divmod(step, len(parts))
            start, width = self.group_slices()[group]
            seen = torch.cat(parts, 1) if number else torch.cat(parts[:group], 1) if group else y[:, :0]
            mean, index = network(seen, features, level)
            here = y[:, start : start + width]
            residual = round_ste(here - mean)
            cost = self._bits(here - mean, index, hard=hard)
            bits = bits + (cost * masks[number]).sum((1, 2, 3))
            # round(y - mu) + mu: only y carries gradient to the decoder.
            rounded = here + (residual + mean - here).detach()
            parts[group] = torch.where(masks[number], rounded, parts[group])
        return torch.cat(parts, 1), bits

    @staticmethod
    def _bits(residual: Tensor, index: Tensor, *, hard: bool) -> Tensor:
        sigma = sigma_of(index)
        return rounded_bits(residual, sigma) if hard else table_bits(residual + _noise(residual), sigma)

    def group_slices(self) -> list[tuple[int, int]]:
        """(first channel, channel count) of each group."""
        groups = self.config.groups
        return [(sum(groups[:g]), width) for g, width in enumerate(groups)]


def checkerboard(y: Tensor) -> tuple[Tensor, Tensor]:
    """Masks [1,1,h,w] of the positions coded in pass 0 (row + column even) and pass 1."""
    rows = torch.arange(y.shape[2], device=y.device)[:, None]
    columns = torch.arange(y.shape[3], device=y.device)[None, :]
    even = ((rows + columns) % 2 == 0)[None, None]
    return even, ~even


def _noise(x: Tensor) -> Tensor:
    return torch.rand_like(x) - 0.5
