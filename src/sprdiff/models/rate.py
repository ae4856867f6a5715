"""What latents cost: bits under the tables, and the weight λ of the distortion against them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..format.constants import LEVELS, SMALLEST_SIGMA, TAIL
from .config import LatentSizes


def lambda_of(level: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return λ: the weight of the squared error (images in 0-1) against bits per pixel at a level in 0-255;
    geometric."""
    low, high = bounds
    return low * torch.exp(level / (LEVELS - 1) * math.log(high / low))


def sigma_of(index: Tensor, config: LatentSizes) -> Tensor:
    """Return the standard deviation of the table with a (possibly fractional) index: geometric from 0.1 to
    `sigma_max`."""
    growth = math.log(config.sigma_max / SMALLEST_SIGMA) / (config.tables - 1)
    return SMALLEST_SIGMA * torch.exp(index * growth)


def table_bits(residual: Tensor, sigma: Tensor) -> Tensor:
    """Return the bits of a residual under the built tables (format/tables.py).

    They are a Gaussian and a faint wider one, which keeps a gradient where the narrow one has none.
    """
    distance = residual.abs()
    mass = (1 - TAIL) * _bin_mass(distance, sigma) + TAIL * _bin_mass(distance, 3 * sigma + 0.3)
    return -torch.log2(mass + 2.5e-7)


def rounded_bits(residual: Tensor, sigma: Tensor) -> Tensor:
    """Return the bits of the rounded residual.

    The table learns from the symbol that is really coded. The residual gets the slope bits(r + 1/2) - bits(r
    - 1/2), which is what uniform noise would give it on average.
    """
    with torch.no_grad():
        symbol = torch.floor(residual + 0.5)
        slope = table_bits(residual + 0.5, sigma) - table_bits(residual - 0.5, sigma)
    return table_bits(symbol, sigma) + (residual - residual.detach()) * slope


def noisy_bits(residual: Tensor, sigma: Tensor) -> Tensor:
    """Return the bits of the residual with uniform noise added, whose expectation is differentiable."""
    return table_bits(residual + torch.rand_like(residual) - 0.5, sigma)


def _bin_mass(distance: Tensor, sigma: Tensor) -> Tensor:
    """Return the probability of the bin of width 1 around a distance."""
    return torch.special.ndtr((0.5 - distance) / sigma) - torch.special.ndtr((-0.5 - distance) / sigma)
