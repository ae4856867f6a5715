"""The order in which y is coded: which positions each pass codes, and the one loop over all steps.

The positions of the y grid fall into four *cells* by the parity of row and column. A step codes one channel
group at the cells of one pass. Training (`latent_codec`) and the search for better symbols (`runtime.search`)
use the same loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import LatentSizes, Order, Passes

CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The four cells: (row, column) modulo 2. A pass codes one, two or three of them."""
Cells = Sequence[tuple[int, int]]


class CodingStep(NamedTuple):
    """The input of a coding step; its arrays hold the positions of its cells, one cell after another in the
    batch.

    Attributes:
        group: the channel group that it codes.
        cells: the cells that it codes.
        y: the latent, [kN,C,h,w].
        mean, table: the prediction of the context network: means and table indices, [kN,C,h,w].
        inside: 1 in the picture and 0 where the grid was padded to even sides, [kN,1,h,w].
    """

    group: int
    cells: Cells
    y: Tensor
    mean: Tensor
    table: Tensor
    inside: Tensor


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
    whole, known = even(y), even(features)
    inside = even(torch.ones_like(y[:, :1]))
    spans = group_spans(config.groups)
    blank = [torch.zeros_like(whole[:, span, ::2, ::2]) for span in spans]
    grids = [whole_grid([zeros] * 4) for zeros in blank]
    coded: dict[tuple[int, int], list[Tensor]] = {}
    for (number, group), count, network in zip(
        config.order, known_groups(config.order), networks, strict=True
    ):
        cells = cells_of(config.passes, number)
        seen = torch.cat(grids[:count], 1) if count else whole[:, :0]
        mean, index = network(seen, at_cells(known, cells), level, cells)
        given = CodingStep(
            group, cells, at_cells(whole[:, spans[group]], cells), mean, index, at_cells(inside, cells)
        )
        for cell, *values in zip(cells, *(part.chunk(len(cells)) for part in code(given)), strict=True):
            coded[group, CELLS.index(cell)] = values
        grids[group] = whole_grid([coded.get((group, place), [blank[group]])[0] for place in range(4)])
    return [
        torch.cat(
            [whole_grid([coded[group, place][kind] for place in range(4)]) for group in range(len(spans))], 1
        )[:, :, : y.shape[2], : y.shape[3]]
        for kind in range(len(coded[0, 0]))
    ]


def even(x: Tensor) -> Tensor:
    """Pad with zeros to even sides, so that all four cells have equally many positions."""
    return F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))


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


def cells_of(passes: Passes, number: int) -> list[tuple[int, int]]:
    """Return the cells that a pass codes."""
    return [(r, c) for r, c in CELLS if passes[r][c] == number]


def known_groups(order: Order) -> list[int]:
    """Return for each step how many groups its context sees: from the first to the last one that is coded
    before it."""
    return [max((group + 1 for _, group in order[:step]), default=0) for step in range(len(order))]


def known_inputs(config: LatentSizes, number: int) -> Tensor:
    """Return which inputs of the 3x3 neighbourhood a step can know: 1 or 0, [9·n], offset by offset."""
    before, groups = set(config.order[:number]), config.groups[: known_groups(config.order)[number]]
    cells, found = cells_of(config.passes, config.order[number][0]), list[float]()
    for row, column in ((i - 1, j - 1) for i in range(3) for j in range(3)):
        near = [config.passes[(r + row) % 2][(c + column) % 2] for r, c in cells]
        found += [
            float(any((p, g) in before for p in near)) for g, width in enumerate(groups) for _ in range(width)
        ]
    return torch.tensor(found)
