"""The order in which y is coded: which positions each pass codes, and the one loop over all steps.

A table of 2x2 or 4x4 numbers says in which pass a position is coded, by its row and column modulo 2 or 4. A
step codes one channel group at the positions of one pass. The first passes of a 4x4 table code every second
row and column only: there the neighbours of a position are two rows and columns away (`lattice`). Training
(`latent_codec`) and the search for better symbols (`runtime.search`) use the same loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import LatentSizes, Order, Passes

CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The four cells: (row, column) modulo 2, in units of the distance of neighbours. A pass codes one, two or
three of them."""
Cells = Sequence[tuple[int, int]]


class CodingStep(NamedTuple):
    """The input of a coding step; its arrays hold the positions of its cells, one cell after another in the
    batch.

    Attributes:
        group: the channel group that it codes.
        distance: rows and columns between neighbours, see `lattice`.
        cells: the cells that it codes.
        y: the latent, [kN,C,h,w].
        mean, table: the prediction of the context network: means and table indices, [kN,C,h,w].
        inside: 1 in the picture and 0 where the grid was padded to whole tables of passes, [kN,1,h,w].
    """

    group: int
    distance: int
    cells: Cells
    y: Tensor
    mean: Tensor
    table: Tensor
    inside: Tensor

    def of(self, x: Tensor) -> Tensor:
        """Return the values of a padded grid at the positions of this step."""
        return at_cells(x[:, :, :: self.distance, :: self.distance], self.cells)


Code = Callable[[CodingStep], Sequence[Tensor]]
"""Codes one step; it returns ŷ at its positions, which later steps see, and further values to be
collected."""


def walk(
    config: LatentSizes, networks: Iterable[nn.Module], y: Tensor, features: Tensor, level: Tensor, code: Code
) -> list[Tensor]:
    """Run `code` on every step in the order of the stream.

    Args:
        networks: the context network of each step.
        y: the latent, multiplied by its gain, [N,Cy,h,w].
        features: the features of the hyper-latent, [N,Ch,h,w].

    Returns:
        Everything that `code` returned, on the whole grid, with the channels of all groups side by side.
    """
    whole, known = padded(y, config.passes), padded(features, config.passes)
    inside = padded(torch.ones_like(y[:, :1]), config.passes)
    spans = group_spans(config.groups)
    coded = _Coded(len(config.passes) // 2, [torch.zeros_like(whole[:, span]) for span in spans])
    for (number, group), count, network in zip(
        config.order, known_groups(config.order), networks, strict=True
    ):
        distance, cells = lattice(config.passes, number)
        seen = coded.seen(distance, count)
        here = at_cells(known[:, :, ::distance, ::distance], cells)
        mean, index = network(seen if seen is not None else whole[:, :0], here, level, cells)
        step = CodingStep(group, distance, cells, whole[:, spans[group]], mean, index, inside)
        coded.add(step, code(step._replace(y=step.of(step.y), inside=step.of(inside))))
    return [part[:, :, : y.shape[2], : y.shape[3]] for part in coded.collected()]


class _Coded:
    """What the steps so far have coded, by the distance of their neighbours, group and cell."""

    def __init__(self, coarsest: int, blank: list[Tensor]) -> None:
        """Begin with nothing.

        Args:
            coarsest: the largest distance.
            blank: zeros for every group on the whole grid.
        """
        self._coarsest, self._blank = coarsest, blank
        self._values: dict[tuple[int, int, int], Sequence[Tensor]] = {}
        self._grids: dict[tuple[int, int], Tensor] = {}

    def add(self, step: CodingStep, values: Sequence[Tensor]) -> None:
        """Add what a step returned."""
        parts = (part.chunk(len(step.cells)) for part in values)
        for cell, *found in zip(step.cells, *parts, strict=True):
            self._values[step.distance, step.group, CELLS.index(cell)] = found
        for distance, group in list(self._grids):
            if group == step.group and distance <= step.distance:
                del self._grids[distance, group]

    def seen(self, distance: int, count: int) -> Tensor | None:
        """Return ŷ of the first groups at every so many rows and columns, zero where it is not coded."""
        return torch.cat([self._grid(distance, group) for group in range(count)], 1) if count else None

    def collected(self) -> list[Tensor]:
        """Return everything on the whole grid, when all steps are done."""
        kinds = len(next(iter(self._values.values())))
        groups = range(len(self._blank))
        return [torch.cat([self._whole(1, group, kind) for group in groups], 1) for kind in range(kinds)]

    def _grid(self, distance: int, group: int) -> Tensor:
        if (distance, group) not in self._grids:
            self._grids[distance, group] = self._whole(distance, group, 0)
        return self._grids[distance, group]

    def _whole(self, distance: int, group: int, kind: int) -> Tensor:
        return whole_grid([self._cell(distance, group, place, kind) for place in range(4)])

    def _cell(self, distance: int, group: int, place: int, kind: int) -> Tensor:
        if (distance, group, place) in self._values:
            return self._values[distance, group, place][kind]
        if place == 0 and distance < self._coarsest:  # coded at larger distances
            return self._grid(2 * distance, group) if kind == 0 else self._whole(2 * distance, group, kind)
        return self._blank[group][:, :, :: 2 * distance, :: 2 * distance]


def lattice(passes: Passes, number: int) -> tuple[int, list[tuple[int, int]]]:
    """Return the distance of neighbours of a pass, and the cells that it codes.

    The distance is the largest power of two, up to half the side of the table, that divides row and column
    of all positions coded in this pass or before; the cells are those of the grid of these positions.
    """
    side = len(passes)
    places = [(r, c) for r in range(side) for c in range(side)]
    distance = side // 2
    while any(passes[r][c] <= number and (r % distance or c % distance) for r, c in places):
        distance //= 2
    own = {(r // distance % 2, c // distance % 2) for r, c in places if passes[r][c] == number}
    return distance, [cell for cell in CELLS if cell in own]


def padded(x: Tensor, passes: Passes) -> Tensor:
    """Pad with zeros to whole tables of passes, so that all cells have equally many positions."""
    side = len(passes)
    return F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))


def at_cells(x: Tensor, cells: Cells) -> Tensor:
    """Return the values at the positions of some cells, one cell after another in the batch: [N,C,2h,2w]
    -> [kN,C,h,w]."""
    return torch.cat([x[:, :, r::2, c::2] for r, c in cells])


def whole_grid(cells: Sequence[Tensor]) -> Tensor:
    """Put the four cells together: four times [N,C,h,w], in the order of `CELLS` -> [N,C,2h,2w]."""
    rows = [torch.stack(list(cells[i : i + 2]), -1).flatten(-2) for i in (0, 2)]
    return torch.stack(rows, -2).flatten(-3, -2)


def group_spans(groups: Sequence[int]) -> list[slice]:
    """Return the channels of each group."""
    return [slice(sum(groups[:g]), sum(groups[: g + 1])) for g in range(len(groups))]


def known_groups(order: Order) -> list[int]:
    """Return for each step how many groups its context sees: from the first to the last one that is coded
    before it."""
    return [max((group + 1 for _, group in order[:step]), default=0) for step in range(len(order))]


def known_inputs(config: LatentSizes, number: int) -> Tensor:
    """Return which inputs of the 3x3 neighbourhood a step can know: 1 or 0, [9·n], offset by offset."""
    before, groups = set(config.order[:number]), config.groups[: known_groups(config.order)[number]]
    own, side, found = config.order[number][0], len(config.passes), list[float]()
    distance, _ = lattice(config.passes, own)
    places = [(r, c) for r in range(side) for c in range(side) if config.passes[r][c] == own]
    for row, column in ((distance * (i - 1), distance * (j - 1)) for i in range(3) for j in range(3)):
        near = [config.passes[(r + row) % side][(c + column) % side] for r, c in places]
        found += [
            float(any((p, g) in before for p in near)) for g, width in enumerate(groups) for _ in range(width)
        ]
    return torch.tensor(found)
