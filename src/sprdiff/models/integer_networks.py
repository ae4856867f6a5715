"""The integer networks of the entropy model in torch, trained with the rounding that they are run with.

Weights are multiples of 2^-12 and activations of 2^-8, so a forward pass in float64 equals `format.intnet`
bit for bit (Ballé et al., "Integer Networks for Data Compression with Latent-Variable Models", ICLR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..format.constants import (
    FRACTION,
    HIDDEN_LIMIT,
    INDEX_SCALE,
    KNOTS,
    MEAN_LIMIT,
    SYMBOL_LIMIT,
    WEIGHT_FRACTION,
)
from .blocks import level_weights
from .config import LatentSizes
from .passes import Cells

WEIGHT_UNIT = 2.0**WEIGHT_FRACTION
ACTIVATION_UNIT = 2.0**FRACTION

_TF32: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)


@contextmanager
def exact_products() -> Iterator[None]:
    """Switch TF32 off inside a ``with`` block.

    cuDNN uses it by default. Its products keep ten bits, and the integer networks need all those of float32.
    """
    before = [part.allow_tf32 for part in _TF32]
    forbid_tf32()
    try:
        yield
    finally:
        for part, allowed in zip(_TF32, before, strict=True):
            part.allow_tf32 = allowed


def forbid_tf32() -> None:
    """Switch TF32 off for good."""
    for part in _TF32:
        part.allow_tf32 = False


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return the precision in which training runs the integer networks on a device.

    On a GPU, float32 convolutions use the 10 bits of TF32 unless it is switched off, and would round to other
    integers. TF32, autocast and compilers leave float64 alone, and it costs little on grids this small. On a
    CPU, float32 is exact.
    """
    return torch.float64 if device.type == "cuda" else torch.float32


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest integer, halves up as `format.intnet` does; the gradient passes straight
    through."""
    return x + (torch.floor(x + 0.5) - x).detach()


class _Clamp(torch.autograd.Function):
    """Clamp whose gradient passes inside the range, and outside of it where descent leads back into it.

    If the gradient always passed, the index of a silent channel could drift without bound, and the channel
    could never be used again (dev/LOG.md, 2026-11-23).
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
    """Clamp; the gradient can always lead back into the range and never further out of it."""
    clamped: Tensor = _Clamp.apply(x, low, high)
    return clamped


def hidden(x: Tensor) -> Tensor:
    """Return the activation of the integer networks: clip to [0, 64) and round to 8 fraction bits."""
    return (
        round_ste(clamp_ste(F.relu(x), 0.0, HIDDEN_LIMIT / ACTIVATION_UNIT) * ACTIVATION_UNIT)
        / ACTIVATION_UNIT
    )


class IntegerDense(nn.Module):
    """One layer of an integer network, as a convolution.

    Its inputs are the 3x3 neighbourhood of ``spatial`` channels (zeros outside), ``point`` channels at the
    position itself, and, with ``level``, the `KNOTS` level weights.
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
        """Return the sums at every position, or at those of the given cells, which follow each other in the
        batch.

        Args:
            around: the input of the 3x3 neighbourhoods, [N,spatial,h,w]; its sides are even where `cells` are
                given.
            here: the input at the position itself, for the positions that the output has.
        """
        given = around if around is not None else here
        assert given is not None
        weight, bias = self._rounded(given.dtype)  # the sums have the precision of the input
        split = 9 * self.spatial
        total: Tensor | None = None
        if around is not None and self.spatial:
            kernel = weight[:, :split].reshape(-1, 3, 3, self.spatial).permute(0, 3, 1, 2)
            total = _neighbourhoods(around, kernel, bias, cells)
        if here is not None and self.point:
            kernel = weight[:, split : split + self.point, None, None]
            part = F.conv2d(here, kernel, None if total is not None else bias)
            total = part if total is None else total + part
        assert total is not None
        if level is not None and self.level:
            of_level = level_weights(level).to(given.dtype) @ weight[:, split + self.point :].T
            total = total + of_level.repeat(len(cells or (0,)), 1)[:, :, None, None]
        return total

    def _rounded(self, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the weight and bias as the file format holds them."""
        limit, bias_unit = SYMBOL_LIMIT / WEIGHT_UNIT, WEIGHT_UNIT * ACTIVATION_UNIT
        weight = round_ste(self.weight.clamp(-limit, limit) * WEIGHT_UNIT).to(kind) / WEIGHT_UNIT
        return weight, round_ste(self.bias * bias_unit).to(kind) / bias_unit


def _neighbourhoods(
    around: Tensor, kernel: Tensor, bias: Tensor, cells: Sequence[tuple[int, int]] | None
) -> Tensor:
    """Return the 3x3 convolution at every position, or only at those of some cells."""
    if cells is None:
        return F.conv2d(around, kernel, bias, padding=1)
    padded = F.pad(around, (1, 1, 1, 1))
    height, width = padded.shape[2:]
    parts = [padded[:, :, r : height - 1 + r, c : width - 1 + c] for r, c in cells]
    return torch.cat([F.conv2d(part, kernel, bias, stride=2) for part in parts])


class HyperSynthesis(nn.Module):
    """ẑ [N,Cz,h,w] and level [N] -> features [N,Ch,r·h,r·w] for the context networks, r = z_ratio."""

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
    """Mean and table index of one channel group in one pass, from what has been decoded before."""

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
        """Return the mean and index at every position of the grid, or at those of the given cells as
        `at_cells` orders them.

        Args:
            y_hat: what has been decoded, zero elsewhere; the network looks at its first `seen` channels.
            features: those of the hyper-latent, at the positions that the output has.
        """
        x = hidden(self.layer0(y_hat[:, : self.seen], features, level, cells))
        x = self.layer2(None, hidden(self.layer1(None, x, None)), None)
        mean = round_ste(x[:, : self.group] * ACTIVATION_UNIT) / ACTIVATION_UNIT
        index = round_ste(clamp_ste(x[:, self.group :] * INDEX_SCALE, 0.0, self.last_table))
        limit = MEAN_LIMIT / ACTIVATION_UNIT
        return clamp_ste(mean, -limit, limit), index
