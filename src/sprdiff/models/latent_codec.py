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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import blocks, conv, down, hats, res_blocks
from .config import FRACTION_BITS, KNOTS, LatentSizes, Order, Passes

WEIGHT_UNIT = 2.0**12
ACTIVATION_UNIT = 2.0**FRACTION_BITS
ACTIVATION_MAX = 16383 / ACTIVATION_UNIT
MEAN_MAX = (2**18 - 1) / ACTIVATION_UNIT
INDEX_SCALE = 16.0
Z_SCALE = 8.0
"""Scales of learned means and indices, so that one rate of learning suits them and the weights alike."""
SIGMA_MIN = 0.1
TAIL = 2.0**-12
CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The four kinds of positions of y: (row, column) modulo 2. A pass codes one, two or three of them."""


@contextmanager
def exact_products() -> Iterator[None]:
    """TF32 off, which cuDNN takes unasked: its products keep ten bits, the integer networks need all of float32's."""
    before = [part.allow_tf32 for part in _TF32]
    forbid_tf32()
    try:
        yield
    finally:
        for part, allowed in zip(_TF32, before, strict=True):
            part.allow_tf32 = allowed


def forbid_tf32() -> None:
    """TF32 off until further notice."""
    for part in _TF32:
        part.allow_tf32 = False


_TF32: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)


def lambda_of(level: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Weight of the squared error (images in 0-1) against bits per pixel at a level in 0-255: geometric."""
    low, high = bounds
    return low * torch.exp(level / 255 * math.log(high / low))


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


Cells = Sequence[tuple[int, int]]


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

    def forward(
        self, around: Tensor | None, here: Tensor | None, level: Tensor | None, cells: Cells | None = None
    ) -> Tensor:
        """The accumulated sums at every position, or at those of the given cells, one after another in the batch.

        Args:
            around: input of the 3x3 neighbourhoods, [N,spatial,h,w] with even sides where `cells` are given.
            here: input at the position itself, at the positions that the output has.
        """
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
            total = _neighbourhoods(around, kernel, bias, cells)
        if here is not None and self.point:
            part = F.conv2d(
                here, weight[:, split : split + self.point, None, None], None if total is not None else bias
            )
            total = part if total is None else total + part
        assert total is not None
        if level is not None and self.level:
            at_this = hats(level).to(kind) @ weight[:, split + self.point :].T
            total = total + at_this.repeat(len(cells or (0,)), 1)[:, :, None, None]
        return total


def _neighbourhoods(around: Tensor, kernel: Tensor, bias: Tensor, cells: Cells | None) -> Tensor:
    """The 3x3 convolution at every position, or only at those of some cells."""
    if cells is None:
        return F.conv2d(around, kernel, bias, padding=1)
    padded = F.pad(around, (1, 1, 1, 1))
    height, width = padded.shape[2:]
    parts = [padded[:, :, r : height - 1 + r, c : width - 1 + c] for r, c in cells]
    return torch.cat([F.conv2d(part, kernel, bias, stride=2) for part in parts])


def at_cells(x: Tensor, cells: Cells) -> Tensor:
    """The values at the positions of some cells, one after another in the batch: [N,C,2h,2w] -> [kN,C,h,w]."""
    return torch.cat([x[:, :, r::2, c::2] for r, c in cells])


def whole_grid(cells: Sequence[Tensor]) -> Tensor:
    """Inverse of taking the four cells apart: four times [N,C,h,w], in the order of `CELLS` -> [N,C,2h,2w]."""
    rows = [torch.stack(list(cells[i : i + 2]), -1).flatten(-2) for i in (0, 2)]
    return torch.stack(rows, -2).flatten(-3, -2)


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
        self.seen, self.group, self.last_table = seen, group, config.tables - 1.0
        self.layer0 = IntegerDense(seen, config.hyper_features, config.context_hidden, level=True)
        self.layer1 = IntegerDense(0, config.context_hidden, config.context_hidden, level=False)
        self.layer2 = IntegerDense(0, config.context_hidden, 2 * group, level=False)
        with torch.no_grad():
            self.layer2.weight.mul_(0.1)
            self.layer2.bias[group:] = 30 / INDEX_SCALE

    def forward(
        self, y_hat: Tensor, features: Tensor, level: Tensor, cells: Cells | None = None
    ) -> tuple[Tensor, Tensor]:
        """At every position of the grid, or at those of the given cells as `at_cells` orders them.

        Args:
            y_hat: what is decoded so far, zero elsewhere; its first `seen` channels are looked at.
            features: of the hyper-latent, at the positions that the output has.
        """
        x = hidden(self.layer0(y_hat[:, : self.seen], features, level, cells))
        x = self.layer2(None, hidden(self.layer1(None, x, None)), None)
        mean = round_ste(x[:, : self.group] * ACTIVATION_UNIT) / ACTIVATION_UNIT
        index = round_ste(clamp_ste(x[:, self.group :] * INDEX_SCALE, 0.0, self.last_table))
        return clamp_ste(mean, -MEAN_MAX, MEAN_MAX), index


def sigma_of(index: Tensor, config: LatentSizes) -> Tensor:
    """Standard deviation of the table with (possibly fractional) ``index``: geometric from 0.1 to `sigma_max`."""
    return SIGMA_MIN * torch.exp(index * (math.log(config.sigma_max / SIGMA_MIN) / (config.tables - 1)))


def table_bits(residual: Tensor, sigma: Tensor) -> Tensor:
    """Bits of a unit-width bin at ``residual`` under the base tables (format/tables.py): a Gaussian and a faint
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
    """Result of one pass through the latent codec; bits are per image, [N].

    Attributes:
        y_hat, means: unscaled ŷ and the means that its symbols were coded with, both known exactly, [N,Cy,h,w].
        features: of the hyper-latent, as exact, [N,Ch,h,w].
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
        trunk, cy, cz = config.trunk, config.y_channels, config.z_channels
        entry = [down(config.fused, trunk), *(down(trunk, trunk) for _ in range(config.y_downs - 1))]
        stack = res_blocks if config.dense else blocks
        self.analysis = nn.Sequential(*entry, *stack(trunk, config.analysis_blocks), conv(trunk, cy))
        half = trunk // 2
        shrink = [down(half, half) for _ in range(config.z_ratio.bit_length() - 1)]
        self.hyper_analysis = nn.Sequential(
            conv(cy, half, 3), nn.SiLU() if config.dense else nn.GELU(), *shrink, *stack(half, 1), conv(half, cz)
        )
        self.hyper_synthesis = HyperSynthesis(config)
        self.context = nn.ModuleList(
            ContextStep(config, sum(config.groups[:known]), config.groups[group])
            for (_, group), known in zip(config.order, known_groups(config.order), strict=True)
        )
        self.forget_unknown()
        # Gains end near a slope of 0.7 per unit of log λ.
        low, high = config.lambda_range
        slope = torch.linspace(-0.5, 0.5, KNOTS)[:, None] * math.log(high / low)
        self.y_log_gain = nn.Parameter(math.log(2.0) + 0.7 * slope.expand(KNOTS, cy).clone())
        self.z_log_gain = nn.Parameter(math.log(2.0) + 0.5 * slope.expand(KNOTS, cz).clone())
        self.z_mean = nn.Parameter(torch.zeros(KNOTS, cz))
        self.z_index = nn.Parameter(torch.full((KNOTS, cz), 25.0 / INDEX_SCALE / Z_SCALE))

    @torch.no_grad()
    def forget_unknown(self) -> None:
        """Zeros as weights of inputs that nothing is known of yet: they stay so, and cost no bytes in a file."""
        for number, step in enumerate(self.context):
            assert isinstance(step, ContextStep)
            weight, known = step.layer0.weight, known_inputs(self.config, number)
            weight[:, : known.numel()].mul_(known.to(weight.device))

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
        index = round_ste(
            clamp_ste(at_level(level, self.z_index) * Z_SCALE * INDEX_SCALE, 0.0, self.config.tables - 1.0)
        )
        return mean[:, :, None, None], index[:, :, None, None]

    def forward(self, y: Tensor, z: Tensor, level: Tensor, *, hard: bool = False) -> Quantised:
        """Quantise and price the latents.

        The decoder sees rounded values (straight-through); bits are those of the values with uniform noise
        added, whose expectation is differentiable (Minnen & Singh, ICIP 2020): the way to start. Noise prices a
        silent channel at 0.06 bits and more; with ``hard`` bits are those of the rounded values, what a file
        really costs, see `rounded_bits`.

        Returns: unscaled ŷ [N,Cy,h,w] and the bits of each image.
        """
        # Compiled code takes the flags that it finds when it runs, and must not set them.
        exact = nullcontext() if torch.compiler.is_compiling() else exact_products()
        with torch.autocast(y.device.type, enabled=False), exact:
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
        y_hat, means, bits = self._code_y(y * gain, features, level, hard=hard)
        return Quantised(y_hat / gain, means / gain, features, bits, z_bits)

    def _code_y(self, y: Tensor, features: Tensor, level: Tensor, *, hard: bool) -> tuple[Tensor, Tensor, Tensor]:
        """ŷ and means (both scaled) and the bits of each image; every step computes its own positions only."""
        even = F.pad(y, (0, y.shape[3] % 2, 0, y.shape[2] % 2)), F.pad(features, (0, y.shape[3] % 2, 0, y.shape[2] % 2))
        slices = self.group_slices()
        blank = torch.zeros_like(even[0][:, :, ::2, ::2])
        values, means = ([[blank[:, s : s + n]] * 4 for s, n in slices] for _ in range(2))
        grids = [whole_grid(cells) for cells in values]
        inside = _inside(y.shape[2:], even[0])
        bits = y.new_zeros(y.shape[0])
        for (number, group), known, network in zip(
            self.config.order, known_groups(self.config.order), self.context, strict=True
        ):
            cells = cells_of(self.config.passes, number)
            start, width = slices[group]
            seen = torch.cat(grids[:known], 1) if known else even[0][:, :0]
            mean, index = network(seen, at_cells(even[1], cells), level, cells)
            here = at_cells(even[0][:, start : start + width], cells)
            counts = at_cells(inside, cells)
            cost = self._bits(here - mean, index, hard=hard) * counts
            bits = bits + cost.sum((1, 2, 3)).view(len(cells), -1).sum(0)
            # round(y - mu) + mu: only y carries gradient to the decoder. Beyond the picture later steps see zeros.
            rounded = (here + (round_ste(here - mean) + mean - here).detach()) * counts
            for cell, value, mu in zip(cells, rounded.chunk(len(cells)), mean.chunk(len(cells)), strict=True):
                values[group][CELLS.index(cell)] = value
                means[group][CELLS.index(cell)] = mu
            grids[group] = whole_grid(values[group])
        exact = torch.cat(grids, 1), torch.cat([whole_grid(cells) for cells in means], 1)
        y_hat, mu = (part[:, :, : y.shape[2], : y.shape[3]] for part in exact)
        return y_hat, mu, bits

    def _bits(self, residual: Tensor, index: Tensor, *, hard: bool) -> Tensor:
        sigma = sigma_of(index, self.config)
        return rounded_bits(residual, sigma) if hard else table_bits(residual + _noise(residual), sigma)

    def group_slices(self) -> list[tuple[int, int]]:
        """(first channel, channel count) of each group."""
        groups = self.config.groups
        return [(sum(groups[:g]), width) for g, width in enumerate(groups)]


def known_groups(order: Order) -> list[int]:
    """For each step how many groups, from the first on, its context looks at: up to the last one coded from."""
    return [max((group + 1 for _, group in order[:step]), default=0) for step in range(len(order))]


def known_inputs(config: LatentSizes, number: int) -> Tensor:
    """Which inputs from the 3x3 neighbourhood a step can know anything of, 1 or 0, [9·n]: offset by offset."""
    before, groups = set(config.order[:number]), config.groups[: known_groups(config.order)[number]]
    cells, found = cells_of(config.passes, config.order[number][0]), list[float]()
    for row, column in ((i - 1, j - 1) for i in range(3) for j in range(3)):
        near = [config.passes[(r + row) % 2][(c + column) % 2] for r, c in cells]
        found += [float(any((p, g) in before for p in near)) for g, width in enumerate(groups) for _ in range(width)]
    return torch.tensor(found)


def cells_of(passes: Passes, number: int) -> list[tuple[int, int]]:
    """The cells that a pass codes."""
    return [(r, c) for r, c in CELLS if passes[r][c] == number]


def _inside(size: Sequence[int], like: Tensor) -> Tensor:
    """1 where a padded grid holds positions of the picture, 0 where it was padded to even sides: [N,1,h,w]."""
    mask = torch.zeros_like(like[:, :1])
    mask[:, :, : size[0], : size[1]].fill_(1)
    return mask


def checkerboard(y: Tensor) -> tuple[Tensor, Tensor]:
    """Masks [1,1,h,w] of the positions coded in pass 0 (row + column even) and pass 1."""
    rows = torch.arange(y.shape[2], device=y.device)[:, None]
    columns = torch.arange(y.shape[3], device=y.device)[None, :]
    even = ((rows + columns) % 2 == 0)[None, None]
    return even, ~even


def _noise(x: Tensor) -> Tensor:
    return torch.rand_like(x) - 0.5
