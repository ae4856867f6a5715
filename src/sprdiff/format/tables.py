"""Frozen tables of integer probabilities, and how training makes them.

Table t gives the symbols -R .. R and an escape, in this order, integer counts that sum to 2^24: a symbol with
count n costs 24 - log2(n) bits. The networks only choose a table by its index, so no float reaches the coder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import WeightsError
from sprdiff.format.constants import PRECISION, SMALLEST_SIGMA, TAIL

T = TypeVar("T")

TOTAL = 1 << PRECISION
MAX_TABLES = 256
MAX_RADIUS = 4096
_FLOOR = 4
"""Smallest count that the builders give a symbol: no symbol inside a table costs more than 22 bits."""
_ESCAPE = 32
"""Smallest count that the builders give the escape: 2^-19."""

IntArray = NDArray[np.integer[Any]]


class Tables:
    """The tables of one set of weights.

    Attributes:
        radius: int32 [T], R of each table.
        counts: uint32, flat: 2R+2 counts per table (symbols -R .. R, then the escape).
        start: int64 [T + 1], where each table begins in `counts`.
        cost: float64, flat like `counts`: bits of each symbol.
    """

    def __init__(self, radius: IntArray, counts: IntArray) -> None:
        """Check and keep the tables.

        Raises:
            WeightsError: wrong shape or dtype, a count of zero, or counts that do not sum to 2^24.
        """
        if radius.dtype != np.int32 or radius.ndim != 1 or not 1 <= radius.size <= MAX_TABLES:
            raise WeightsError(f"tables.radius must be int32 with 1 to {MAX_TABLES} entries")
        if radius.min() < 0 or radius.max() > MAX_RADIUS:
            raise WeightsError(f"tables.radius must lie between 0 and {MAX_RADIUS}")
        self.start = np.concatenate(([0], np.cumsum(2 * radius.astype(np.int64) + 2)))
        if counts.dtype != np.uint32 or counts.shape != (self.start[-1],):
            raise WeightsError(f"tables.counts must be uint32 with {self.start[-1]} entries")
        sums = np.add.reduceat(counts.astype(np.int64), self.start[:-1])
        if counts.min() < 1 or np.any(sums != TOTAL):
            raise WeightsError("the counts of each table must be at least 1 and sum to 2^24")
        self.radius, self.counts = radius, counts
        self.cost: NDArray[np.float64] = PRECISION - np.log2(counts.astype(np.float64))
        self._models: dict[tuple[Any, int], Any] = {}

    def __len__(self) -> int:
        return int(self.radius.size)

    def model(self, table: int, make: Callable[[IntArray], T]) -> T:
        """Return what a range coder's `make` makes of a table's counts; it is made only once."""
        if (make, table) not in self._models:
            self._models[make, table] = make(self.counts[self.start[table] : self.start[table + 1]])
        return self._models[make, table]


def sigma_ladder(n: int = 64, low: float = SMALLEST_SIGMA, high: float = 32.0) -> NDArray[np.float64]:
    """Return standard deviations of the `n` base tables, in symbols: geometric from `low` to `high`.

    Raises:
        ValueError: there are not 1 to `MAX_TABLES` of them, they do not grow, or the widest would pass
            `MAX_RADIUS`.
    """
    if not 1 <= n <= MAX_TABLES or not 0 < low <= high or _radius(high) > MAX_RADIUS:
        raise ValueError(f"there is no ladder of {n} standard deviations from {low} to {high}")
    return np.geomspace(low, high, n)


def make_gaussian_tables(sigmas: Sequence[float] | NDArray[np.float64]) -> tuple[IntArray, IntArray]:
    """Return tables of zero-mean Gaussians integrated over unit bins, with a slightly heavy tail.

    Returns:
        (radius int32 [T], counts uint32 flat) as `Tables` takes them; R = ceil(6 sigma) + 2, symmetric.
    """
    radius, counts = [], []
    for sigma in map(float, sigmas):
        size = _radius(sigma)
        wide = 3 * sigma + 0.3
        half = [(1 - TAIL) * _bin(q, sigma) + TAIL * _bin(q, wide) for q in range(1, size + 1)]
        shares = [round(p * 2**48) for p in half]
        radius.append(size)
        counts.append(_counts(shares, 0, 2**48))
    return np.array(radius, np.int32), np.concatenate(counts)


def fit_tables(
    histograms: Sequence[IntArray], base: tuple[IntArray, IntArray], pseudo_count: int = 256
) -> tuple[IntArray, IntArray]:
    """Refit tables to counted residual symbols; the arithmetic is on integers only, so the result is the same
    everywhere.

    Args:
        histograms: per table int64 [2R + 2]: how often each symbol -R .. R and the escape were coded.
        base: (radius, counts) of the tables that they were counted with, symmetric.
        pseudo_count: symbols that the base table is worth: a table counted less often stays near its base.

    Returns:
        (radius, counts): the same radii, symmetric counts.
    """
    radius, flat = base
    tables = Tables(radius, flat)
    if [len(h) for h in histograms] != (2 * radius + 2).tolist() or min(
        int(np.min(h)) for h in histograms
    ) < 0:
        raise ValueError("fit_tables needs one histogram of 2R + 2 counts per table")
    counts = []
    for t, histogram in enumerate(histograms):
        prior = [int(n) for n in flat[tables.start[t] : tables.start[t + 1]]]
        seen = [int(n) for n in histogram]
        mid = int(radius[t])
        half = [
            (seen[mid + q] + seen[mid - q]) * TOTAL + 2 * pseudo_count * prior[mid + q]
            for q in range(1, mid + 1)
        ]
        escape = 2 * (seen[-1] * TOTAL + pseudo_count * prior[-1])
        counts.append(_counts(half, escape, 2 * (sum(seen) + pseudo_count) * TOTAL))
    return radius.copy(), np.concatenate(counts)


def _radius(sigma: float) -> int:
    """Return R of a built table: symbols beyond six standard deviations escape."""
    return math.ceil(min(6 * sigma, 1e9)) + 2


def _bin(q: int, sigma: float) -> float:
    """Return the mass of a zero-mean Gaussian on [q - 1/2, q + 1/2] for q >= 1, accurate in the tail."""
    unit = sigma * math.sqrt(2)
    return 0.5 * (math.erfc((q - 0.5) / unit) - math.erfc((q + 0.5) / unit))


def _counts(half: list[int], escape: int, total: int) -> NDArray[np.uint32]:
    """Return one table from the shares (of `total`) of the symbols 1 .. R and of the escape; the symbol 0
    gets what is left.

    Every symbol gets its floor first and a share of the rest, so the symbol 0 can never come out empty.
    """
    rest = TOTAL - _FLOOR * (2 * len(half) + 1) - _ESCAPE
    side = [_FLOOR + share * rest // total for share in half]
    last = _ESCAPE + escape * rest // total
    centre = TOTAL - 2 * sum(side) - last
    return np.array([*reversed(side), centre, *side, last], np.uint32)
