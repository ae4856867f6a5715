"""Refinement in the encoder (``--effort``): better integers for one picture, found by trying them.

    y ─ quantise ─► symbols ─► J = bits + λ · squared error of x̃, of every cell of 32x32 pixels
                       ▲              │ its gradient
                       └─ ±1 where it should pay: one symbol in each block, kept if J of the block falls

The file format does not change, and every decoder reads the result. At these rates nearly all symbols are 0,
and a change by one is a large step: following the gradient of a relaxed quantiser (stochastic Gumbel
annealing, Yang et al. 2020) made files larger (dev/LOG.md). Therefore the gradient, with a curvature that is
measured on the way, only proposes changes; what is kept has been tried. Blocks are so far apart that all of
them are tried at once.

The symbols are those of the file, bit for bit. Latents and integer networks are in float64, as in
`format.entropy`, and gains and means are that module's own tables of the level. Those that torch would
compute from the model's knots differ by a hair, which is enough for other symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..common.progress import Report
from ..format.entropy import LevelTables
from ..imageio.resize import Tile, area, tiles
from ..interrupt import checkpoint
from ..models.config import LatentSizes
from ..models.passes import CodingStep, group_spans, padded, walk
from ..models.rate import lambda_of, sigma_of, table_bits
from ..models.sprdiff import SPRDiff

Floats = NDArray[np.float32]

ROUNDS = (0, 1, 2, 4, 6, 9, 13, 18, 25, 36)
"""The number of gradients at efforts 0 to 9; each is followed by `TRIALS` trials."""
TRIALS = 5
BLOCK = 5
"""The number of cells along a side of a block. The outermost cells are not changed, because a symbol's
effects mostly stay in its block."""
HOPELESS = 8.0
"""A change whose predicted loss is above this number of bits is not tried; predictions are rough."""
WORTH = 0.3
"""A change is kept if it gains at least this number of bits."""
REST = 12
"""The number of rounds in which a change that lost is not tried again."""
TYPICAL_CURVATURE = 25.0
"""The second derivative of J by a symbol, in bits, before anything is measured."""
STRIDE, WINDOW, HALO = 32, 32, 8
"""Pixels per cell; cells along a side of a window that is refined at once; and cells around it."""


class State(NamedTuple):
    """The symbols of given latents, and their cost.

    Attributes:
        y_hat: ŷ times its gain, exact, float64 [1,Cy,h,w].
        symbols, tables: the coded integers and the table of each, [1,Cy,h,w].
        cost: J of each cell in bits, [1,1,h,w].
        slope: dJ/dŷ, [1,Cy,h,w], or None.
    """

    y_hat: Tensor
    symbols: Tensor
    tables: Tensor
    cost: Tensor
    slope: Tensor | None


class Window:
    """One part of a picture that is refined at once."""

    def __init__(
        self,
        model: SPRDiff,
        tables: LevelTables,
        image: Tensor,
        inside: Tensor,
        y: Tensor,
        z: Tensor,
        level: int,
    ) -> None:
        """Prepare a part with its surroundings.

        Args:
            tables: the parameters of the level.
            image: [1,3,32h,32w] in 0-1.
            inside: [1,1,32h,32w], 1 in the picture and 0 beyond its border.
            y, z: the unscaled latents, [1,Cy,h,w] and [1,Cz,ceil(h/2),ceil(w/2)].
        """
        self._model, self._codec = model, model.latent_codec
        self._image, self._inside = image, inside
        self._level = torch.tensor([float(level)])
        self._gain = _by_channel(tables.y_gain)
        self._weight = float(lambda_of(self._level, model.config.lambda_range))
        self.target = y.double() * self._gain
        self._features = self._hyper(z.double() * _by_channel(tables.z_gain), _by_channel(tables.z_mean))

    @property
    def config(self) -> LatentSizes:
        """The sizes of the latent codec."""
        return self._codec.config

    @property
    def y(self) -> Tensor:
        """The current unscaled latent, [1,Cy,h,w]."""
        return (self.target / self._gain).float()

    def _hyper(self, z: Tensor, mean: Tensor) -> Tensor:
        z_hat = torch.floor(z - mean + 0.5) + mean
        features: Tensor = self._codec.hyper_synthesis(z_hat, self._level)
        return features[:, :, : self.target.shape[2], : self.target.shape[3]]

    def state(self, target: Tensor, *, slope: bool = False) -> State:
        """Quantise and decode; z does not change, and its bits are not part of J."""
        with torch.set_grad_enabled(slope):
            return self._state(target, slope)

    def _state(self, target: Tensor, slope: bool) -> State:
        config = self.config
        probe = torch.zeros_like(target, requires_grad=slope)
        probes, spans = padded(probe, config.passes), group_spans(config.groups)

        def code(step: CodingStep) -> tuple[Tensor, ...]:
            symbol = torch.floor(step.y - step.mean.detach() + 0.5)
            # The cost of a symbol depends on the mean, too: ŷ stays, so the residual moves against the mean.
            residual = symbol - (step.mean - step.mean.detach())
            bits = (table_bits(residual, sigma_of(step.table, config)) * step.inside).sum(1, True)
            # Beyond the picture later steps see zeros.
            value = symbol + step.mean.detach() + step.of(probes[:, spans[step.group]])
            return value * step.inside, step.mean, symbol, step.table.detach(), bits

        walked = walk(config, self._codec.context, target, self._features, self._level, code)
        y_hat, means, symbols, tables, bits = walked
        cost = bits.sum(1, True) + self._weight * self._squared_error(y_hat, means)
        gradient = torch.autograd.grad(cost.sum(), probe)[0].float() if slope else None
        # Only ŷ has to be exact; costs are compared in float32.
        return State(y_hat.detach(), symbols.float(), tables.float(), cost.detach().float(), gradient)

    def _squared_error(self, y_hat: Tensor, means: Tensor) -> Tensor:
        """Return the squared error of each cell in pixels, [1,1,h,w]."""
        exact = ((y_hat / self._gain).float(), (means / self._gain).float(), self._features.float())
        _, f16 = self._model.synthesis(*exact, self._level)
        error = (self._model.reconstruction.coarse(f16) - self._image) * self._inside
        return F.avg_pool2d(error.square().mean(1, keepdim=True), STRIDE) * STRIDE**2


class Search:
    """The trials in one window; ``free`` says in which cells symbols may change, [h,w]."""

    def __init__(self, window: Window, free: Tensor, seed: int) -> None:
        self._window, self._free = window, free
        self._random = torch.Generator().manual_seed(seed)
        channels, self._size = window.target.shape[1], (window.target.shape[2], window.target.shape[3])
        self._rest = torch.zeros(channels, free.numel(), dtype=torch.int64)
        # Sums of measured curvatures and their number, by channel; older ones fade.
        self._curvature, self._measured = torch.zeros(channels), torch.zeros(channels)

    def round(self) -> float:
        """Take one gradient and do its trials; return J before them, in bits."""
        window = self._window
        now = window.state(window.target, slope=True)
        slope = now.slope
        assert slope is not None
        gain, sign = self._predicted(now, slope[0].flatten(1))
        cost, target = now.cost.flatten().clone(), window.target
        for _ in range(TRIALS):
            block, cells = self._nominated(gain)
            if len(cells) == 0:
                break
            channels = gain[:, cells].argmin(0)
            tried = target.clone()
            tried[0].flatten(1)[channels, cells] = (now.y_hat[0].flatten(1) + sign)[channels, cells]
            after = window.state(tried).cost.flatten()
            change = torch.zeros(int(block.max()) + 1).index_add_(0, block, after - cost)[block[cells]]
            self._learn(channels, change - gain[channels, cells])
            good = change < -WORTH
            target = target.clone()
            target[0].flatten(1)[channels[good], cells[good]] = tried[0].flatten(1)[
                channels[good], cells[good]
            ]
            cost = torch.where(torch.isin(block, block[cells[good]]), after, cost)
            self._rest[channels[~good], cells[~good]] = REST
            gain[channels, cells] = torch.inf
        self._rest = (self._rest - 1).clamp(min=0)
        window.target = target
        return float(now.cost.sum())

    def _predicted(self, now: State, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted change of J for the better of one up and one down, and its sign; both [Cy,
        cells]."""
        symbols, sigma = now.symbols[0].flatten(1), sigma_of(now.tables[0].flatten(1), self._window.config)
        curvature = ((self._curvature + 2 * TYPICAL_CURVATURE) / (self._measured + 2))[:, None]
        bits = table_bits(symbols, sigma)
        down, up = (d * slope + curvature / 2 + table_bits(symbols + d, sigma) - bits for d in (-1.0, 1.0))
        gain = torch.where(self._rest > 0, torch.inf, torch.minimum(down, up))
        return torch.where(self._free.flatten(), gain, torch.inf), torch.where(down < up, -1.0, 1.0)

    def _nominated(self, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block of every cell, in a grid with a random corner, and the most promising inner
        cell of each block."""
        rows, columns = (
            torch.arange(side) + int(torch.randint(BLOCK, (), generator=self._random)) for side in self._size
        )
        across = int(columns.max()) // BLOCK + 1
        block = (rows[:, None] // BLOCK * across + columns // BLOCK).flatten()
        inner = [(r % BLOCK > 0) & (r % BLOCK < BLOCK - 1) for r in (rows, columns)]
        best = torch.where((inner[0][:, None] & inner[1]).flatten(), gain.amin(0), torch.inf)
        best = torch.where(best < HOPELESS, best, torch.inf)
        least = torch.full((int(block.max()) + 1,), torch.inf).scatter_reduce_(0, block, best, "amin")
        chosen = torch.nonzero((best == least[block]) & torch.isfinite(best)).flatten()
        _, first = np.unique(block[chosen].numpy(), return_index=True)  # two cells may tie
        return block, chosen[torch.from_numpy(first)]

    def _learn(self, channels: Tensor, surplus: Tensor) -> None:
        """Update the curvature: what trials lost beyond the prediction is curvature that was not known."""
        known = (self._curvature + 2 * TYPICAL_CURVATURE) / (self._measured + 2)
        found = known[channels] + 2 * surplus.clamp(-TYPICAL_CURVATURE, 4 * TYPICAL_CURVATURE)
        fade = torch.ones_like(self._measured).index_fill_(0, channels, 0.95)
        self._curvature = (self._curvature * fade).index_add_(0, channels, found)
        self._measured = (self._measured * fade).index_add_(0, channels, torch.ones_like(found))


def refine(
    model: SPRDiff,
    tables: LevelTables,
    pixels: NDArray[np.uint8],
    y: Floats,
    z: Floats,
    level: int,
    *,
    rounds: int,
    report: Report | None = None,
) -> Floats:
    """Return a latent y with better symbols at `level`: it minimises bits + λ(level) · error of x̃.

    Args:
        model: the torch modules of the weights that coded `pixels`.
        tables: the parameters of those weights at `level`.
        pixels: the picture as it is coded, uint8 [H, W, 3].
        y, z: its unscaled latents, [Cy, ceil(H/32), ceil(W/32)] and [Cz, ceil(H/64), ceil(W/64)].
        rounds: how many gradients are taken, see `ROUNDS`; the time grows with them and with the number of
            pixels.
        report: receives the fraction that is done.

    Returns:
        Another y of the same shape.
    """
    refined = y.copy()
    windows = list(tiles(y.shape[1], y.shape[2], WINDOW, HALO, 2))
    for number, tile in enumerate(windows):
        window = Window(model, tables, *_part(pixels, tile), *_latents(refined, z, tile), level)
        size = window.target.shape[2:]
        free = torch.zeros(*size, dtype=torch.bool)
        free[tile.inner] = True
        search = Search(window, free, seed=number)
        best, found = float("inf"), window.y
        for step in range(rounds + 1):
            checkpoint(area(tile.padded) * STRIDE**2)
            before = window.y
            cost = search.round() if step < rounds else float(window.state(window.target).cost.sum())
            if cost < best:
                best, found = cost, before
            if report is not None:
                report((number + (step + 1) / (rounds + 1)) / len(windows))
        refined[:, *tile.core] = found[0, :, *tile.inner].numpy()
    return refined


def _part(pixels: NDArray[np.uint8], tile: Tile) -> tuple[Tensor, Tensor]:
    """Return the pixels of a tile of cells as an image [1,3,32h,32w], and which of them belong to the
    picture."""
    rows, columns = (slice(STRIDE * s.start, STRIDE * s.stop) for s in tile.padded)
    part = pixels[rows, columns]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    image, inside = torch.zeros(1, 3, height, width), torch.zeros(1, 1, height, width)
    image[0, :, : part.shape[0], : part.shape[1]] = torch.from_numpy(part.copy()).permute(2, 0, 1) / 255
    inside[..., : part.shape[0], : part.shape[1]] = 1
    return image.contiguous(memory_format=torch.channels_last), inside


def _latents(y: Floats, z: Floats, tile: Tile) -> tuple[Tensor, Tensor]:
    rows, columns = tile.padded
    half = [slice(s.start // 2, -(-s.stop // 2)) for s in tile.padded]
    return (
        torch.from_numpy(np.ascontiguousarray(y[None, :, rows, columns])),
        torch.from_numpy(np.ascontiguousarray(z[None, :, half[0], half[1]])),
    )


def _by_channel(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values)[None, :, None, None]


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set the number of torch's threads during a ``with`` block; None changes nothing."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
