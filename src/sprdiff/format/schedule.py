"""The steps in which y is coded, read from the weights, and which of their inputs can be other than zero.

`passes` says in which pass a position of the y grid is coded, by its row and column modulo 2 or 4, and
`order` which (pass, channel group) each step codes. Any order is legal: see `docs/bitstream.md`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import WeightsError
from sprdiff.format.container import MAX_CHANNELS, STRIDES
from sprdiff.format.intnet import Arrays, Index, Run, Step, fetch

MAX_PASSES = 8
SIDES = (2, 4)
"""Rows and columns after which the passes repeat."""
MAX_GROUPS = 16


class Schedule:
    """The steps of one set of weights.

    Attributes:
        stride: pixels of the coded picture per position of the y grid, along one side.
        channels: the number of channels of y.
        border: the largest distance of neighbours, in rows and columns.
        steps: the steps in the order of the stream.
    """

    def __init__(self, arrays: Arrays) -> None:
        """Read and check `stride`, `groups`, `passes` and `order`.

        Raises:
            WeightsError: one is missing, has another shape or dtype, or is beyond the limits.
        """
        self.stride = int(fetch(arrays, "stride", np.int32, (1,))[0])
        if self.stride not in STRIDES:
            raise WeightsError(f"stride must be one of {', '.join(map(str, STRIDES))}, not {self.stride}")
        spans = _spans(fetch(arrays, "groups", np.int32, (None,)))
        self.channels = spans[-1].stop
        self._passes = fetch(arrays, "passes", np.int32, (None, None))
        self._side = len(self._passes)
        if self._passes.shape not in [(side, side) for side in SIDES]:
            raise WeightsError(f"passes must be 2x2 or 4x4, not {self._passes.shape}")
        count = _pass_count(self._passes)
        order = fetch(arrays, "order", np.int32, (None, 2))
        pairs = [(number, group) for number, group in order.tolist()]
        if sorted(pairs) != [(number, group) for number in range(count) for group in range(len(spans))]:
            raise WeightsError(
                f"order must name each of {count} passes with each of {len(spans)} groups exactly once"
            )
        self.steps = tuple(self._step(pairs[:s], *pair, spans) for s, pair in enumerate(pairs))
        self.border = max(step.distance for step in self.steps)

    def positions(self, shape: tuple[int, int]) -> list[Index]:
        """Return the positions of a grid that each pass codes, in raster order."""
        row, column = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
        number = self._passes[row % self._side, column % self._side]
        return [np.flatnonzero(number == p) for p in range(int(self._passes.max()) + 1)]

    def _step(self, before: list[tuple[int, int]], number: int, group: int, spans: list[slice]) -> Step:
        depth = max((spans[g].stop for _, g in before), default=0)
        seen: tuple[Run, ...] = ()
        distance = self._distance(number)
        for offset in range(9):
            passes = self._passes_at(offset, number, distance)
            known = sorted({g for p, g in before if p in passes})
            seen += tuple(_merged(offset, [spans[g] for g in known]))
        return Step(number, distance, spans[group], depth, seen)

    def _distance(self, number: int) -> int:
        """Return how far neighbours of a pass are from each other: the largest power of two, up to half the
        side of the table, that divides row and column of all positions coded in this pass or before."""
        places = np.argwhere(self._passes <= number)
        distance = self._side // 2
        while (places % distance).any():
            distance //= 2
        return distance

    def _passes_at(self, offset: int, number: int, distance: int) -> set[int]:
        """Return the passes in which the neighbours of a pass's positions at an offset are coded."""
        rows, columns = np.nonzero(self._passes == number)
        down, right = distance * (offset // 3 - 1), distance * (offset % 3 - 1)
        near = self._passes[(rows + down) % self._side, (columns + right) % self._side]
        return set(near.tolist())


def _spans(groups: NDArray[np.int32]) -> list[slice]:
    """Return the channels of each group."""
    if not 1 <= groups.size <= MAX_GROUPS:
        raise WeightsError(f"there must be 1 to {MAX_GROUPS} groups, not {groups.size}")
    stops = np.cumsum(groups.astype(np.int64)).tolist()
    if groups.min() < 1 or stops[-1] > MAX_CHANNELS:
        raise WeightsError(f"groups must all be at least 1 and have {MAX_CHANNELS} channels together at most")
    return [slice(stop - size, stop) for stop, size in zip(stops, groups.tolist(), strict=True)]


def _pass_count(passes: NDArray[np.int32]) -> int:
    """Return P; the passes have the numbers 0 to P - 1."""
    used = sorted(set(passes.ravel().tolist()))
    if used != list(range(len(used))) or not 2 <= len(used) <= MAX_PASSES:
        raise WeightsError(f"passes must be numbers from 0 on, none left out, 2 to {MAX_PASSES} of them")
    return len(used)


def _merged(offset: int, spans: list[slice]) -> list[Run]:
    """Return the runs of channels at an offset; adjacent spans are merged."""
    runs: list[Run] = []
    for span in spans:
        if runs and runs[-1][2] == span.start:
            runs[-1] = (offset, runs[-1][1], span.stop)
        else:
            runs.append((offset, span.start, span.stop))
    return runs
