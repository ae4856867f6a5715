"""The networks on onnxruntime: pixels to latents and back, in overlapping tiles with limited memory.

    pixels ─ encoder ─► y, z                       (then the exact part codes them: `format.entropy`)
    ŷ, means, features ─ coarse ─► x̃ ──────────────────────────────────┬─── × (1 − s) ──┐
                            └────► f16, f32 ─ condition ─┐             │                │
                                   noise ─ flow, N times ┴─► z0 ─ vae_decode ─► x̂ × s ─+─► picture

Each arrow runs over the whole picture, tile by tile, before the next begins, and so does each evaluation of
the flow. Therefore every graph needs only its own halo, and more evaluations need no larger tiles.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..common.extras import needed
from ..common.progress import Report
from ..errors import EffortError, WeightsError
from ..format.constants import FRACTION
from ..format.entropy import EntropyModel, Exact
from ..imageio.resize import Tile, area
from ..interrupt import checkpoint
from .canvas import Canvas
from .noise import normal_noise
from .sampler import solve
from .sessions import Sessions, Tensors
from .tiling import DECODER_TILE, ENCODER_TILE, Y_STRIDE, Z_STRIDE, Floats, cut, inner, patch, store, times
from .weights import (
    GRAPHS,
    Arrays,
    Manifest,
    check_hash,
    read_arrays,
    read_manifest,
    read_network,
    sends_only,
)

if TYPE_CHECKING:
    from ..models.sprdiff import SPRDiff

Halves = NDArray[np.float16]

LATENT = 4
"""How many positions of the flow's latent, at 1/8, lie along one position of y."""
FEATURES = {"f16": 2, "f32": 1}
"""How many positions of the receiver's features lie along one position of y."""
_CONDITIONS = dict(zip(GRAPHS["condition"][1], (4, 2, 1), strict=True))
"""How many positions of the flow's conditions lie along one position of y."""
MAX_LATENT = 256
"""The largest number of channels of the flow's latent, whose noise is made for the whole picture."""
_NOISE_ROWS = 64


def strength(realism: float) -> float:
    """Return s of the dial x̃ + s·(x̂ − x̃): 0 at a realism of 0, 1 at 1, continuous and
    growing between."""
    return realism


class OnnxRuntime:
    """The networks of one weights folder.

    Attributes:
        manifest: the folder's manifest.
        entropy: the exact part.
        weights_hash: H, the hash of the exact part's arrays.
    """

    def __init__(
        self,
        folder: Path,
        threads: int | None = None,
        tile: int | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        """Read and check the exact part and the decoder's weights; graphs are loaded when they are first
        needed.

        Args:
            folder: a weights folder.
            threads: the number of threads of the networks; None: one for each core.
            tile: the largest side of a tile in pixels; None: the choice of `tiling` for each graph.
            manifest: the folder's manifest; None: it is read.

        Raises:
            WeightsError: the folder is incomplete or damaged, or its arrays are not those of its manifest.
        """
        self._folder = folder
        self.manifest = read_manifest(folder) if manifest is None else manifest
        exact = read_arrays(folder / "entropy.npz")
        self.weights_hash = self.manifest.weights_hash
        check_hash(folder, "exact part", exact, self.weights_hash)
        self._decoder: Arrays = {}
        if not sends_only(folder):
            self._decoder = read_network(folder, "decoder", self.manifest.decoder_hash)
        self.entropy = EntropyModel(exact)
        grids = (self.entropy.stride, self.entropy.stride * self.entropy.ratio)
        if grids != (Y_STRIDE, Z_STRIDE):
            raise WeightsError(
                f"{folder} has latents at 1/{grids[0]} and 1/{grids[1]}, "
                f"and its graphs are for 1/{Y_STRIDE} and 1/{Z_STRIDE}"
            )
        self._encoder: Arrays | None = None
        self._sessions = Sessions(folder, self.manifest, threads)
        self._lock = threading.Lock()
        self._tile = tile
        self._threads = threads
        self._model: SPRDiff | None = None

    def analyse(self, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Compute y [Cy, ceil(H/32), ceil(W/32)] and z on half of that grid, unscaled float32, from pixels
        uint8 [H, W, 3]."""
        height, width = pixels.shape[:2]
        rows, columns = -(-height // Z_STRIDE), -(-width // Z_STRIDE)
        y = np.empty((self.entropy.y_channels, 2 * rows, 2 * columns), np.float32)
        z = np.empty((self.entropy.z_channels, rows, columns), np.float32)
        for tile, large in self._tiles("encoder", rows, columns, Z_STRIDE, ENCODER_TILE):
            inputs = {"image": patch(pixels, times(tile.padded, Z_STRIDE))}
            out = self._sessions.run("encoder", self._encoder_weights(), inputs, large=large)
            store(y, out["y"], tile, 2)
            store(z, out["z"], tile, 1)
        return y[:, : -(-height // Y_STRIDE), : -(-width // Y_STRIDE)], z

    def refine(
        self,
        pixels: NDArray[np.uint8],
        y: Floats,
        z: Floats,
        level: int,
        effort: int,
        report: Report | None = None,
    ) -> Floats:
        """Refine y for a level (`search.refine`) at an effort of 1-9: the result costs fewer bits for its
        quality.

        Raises:
            EffortError: torch is not installed.
        """
        with needed("train", EffortError, "effort"):
            from ..models.stored import load_folder
            from .search import ROUNDS, refine, torch_threads
        with self._lock:
            if self._model is None:
                self._model = load_folder(self._folder, read_arrays).eval().requires_grad_(False)
        with torch_threads(self._threads):
            tables = self.entropy.level_tables(level)
            return refine(self._model, tables, pixels, y, z, level, rounds=ROUNDS[effort], report=report)

    def decode(
        self,
        exact: Exact,
        *,
        level: int,
        realism: float = 1.0,
        steps: int = 1,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Decode what is known exactly.

        Args:
            exact: the result of `EntropyModel.decode`. If the caller keeps no reference, its memory is free
                before the flow.
            level: the quality level with which it was coded.
            realism: 0 (coarse picture) to 1 (a sample of the possible pictures); 0 runs only the coarse
                graph.
            steps: the evaluations of the flow, at least 1.
            seed: the seed of the noise from which the flow starts, 0 .. 2^64 - 1.
            size: (height, width) to crop to; None: the whole grid.
            dtype: float32 for a picture in 0-1, or uint8 in 0-255.

        Returns:
            The picture, [height, width, 3].

        Raises:
            WeightsError: the folder holds only the encoder.
        """
        rows, columns = exact.y_hat.shape[1:]
        # Whole cells, because the networks also see the coarse picture beyond the border.
        canvas = Canvas((Y_STRIDE * rows, Y_STRIDE * columns), dtype)
        share = strength(realism)
        features = self._reconstruct(exact, level, canvas, keep=share > 0)
        del exact
        if share > 0:
            z0 = self._draw(canvas.image, features, level, steps, seed)
            del features
            self._decode_latent(z0, canvas, share)
        height, width = size or canvas.image.shape[:2]
        return canvas.image[:height, :width]

    def _reconstruct(self, exact: Exact, level: int, canvas: Canvas, *, keep: bool) -> dict[str, Halves]:
        """Paint the coarse picture; return the features of the whole picture (if `keep`).

        They are kept in half precision, as in training: the flow has seen no others.
        """
        rows, columns = exact.y_hat.shape[1:]
        levels = np.array([level], np.float32)
        kept: dict[str, Halves] = {}
        for tile, large in self._tiles("coarse", rows, columns):
            given = {"y_hat": exact.y_hat, "means": exact.mu}
            inputs = {
                name: self.entropy.dequantise(np.ascontiguousarray(values[:, *tile.padded]), level)[None]
                for name, values in given.items()
            }
            features = exact.h[None, :, *tile.padded].astype(np.float32, order="C")
            inputs |= {"features": features / np.float32(2**FRACTION), "level": levels}
            out = self._receive("coarse", inputs, large=large)
            canvas.put(times(tile.core, Y_STRIDE), inner(out["x_tilde"], tile, Y_STRIDE))
            for name, scale in FEATURES.items() if keep else ():
                shape = (out[name].shape[1], scale * rows, scale * columns)
                store(kept.setdefault(name, np.empty(shape, np.float16)), out[name], tile, scale)
        return kept

    def _draw(
        self, coarse: NDArray[Any], features: dict[str, Halves], level: int, steps: int, seed: int
    ) -> Floats:
        """Sample the latent z0 [Z, 4 yh, 4 yw], standardised, with the noise of a seed."""
        rows, columns = features["f32"].shape[1:]
        tiled = list(self._cut("flow", rows, columns))
        once = self._conditions(coarse, features, tiled[0][0], large=False) if len(tiled) == 1 else None
        levels = np.array([level], np.float32)

        def velocity(z: Floats, time: float, stride: float) -> Floats:
            result = np.empty_like(z)
            inputs = {
                "time": np.array([time], np.float32),
                "stride": np.array([stride], np.float32),
                "level": levels,
            }
            for tile, large in tiled:
                # With several tiles the conditions are computed again: they are larger than everything else
                # together.
                given = once or self._conditions(coarse, features, tile, large=large)
                checkpoint(area(tile.padded) * Y_STRIDE**2)
                inputs["z_t"] = np.ascontiguousarray(z[None, :, *times(tile.padded, LATENT)])
                store(result, self._receive("flow", inputs | given, large=large)["velocity"], tile, LATENT)
            return result

        noise = _noise(seed, self._latent_channels(), LATENT * rows, LATENT * columns)
        return solve(velocity, noise, steps, self.manifest.sampler, self.manifest.latest)

    def _conditions(
        self, coarse: NDArray[Any], features: dict[str, Halves], tile: Tile, *, large: bool
    ) -> Tensors:
        """Compute the flow's conditions for everything that a tile sees, each [1, C, h, w]."""
        grid = features["f32"].shape[1:]
        halo = -(-self.manifest.halo_of("condition") // Y_STRIDE)
        around, within = zip(
            *(_widened(s, halo, n) for s, n in zip(tile.padded, grid, strict=True)), strict=True
        )
        inputs = {"x_tilde": patch(coarse, times(around, Y_STRIDE))}
        checkpoint(area(around) * Y_STRIDE**2)
        for name, scale in FEATURES.items():
            inputs[name] = features[name][None, :, *times(around, scale)].astype(np.float32, order="C")
        out = self._receive("condition", inputs, large=large)
        seen = Tile(within, around, within)
        return {
            name: np.ascontiguousarray(inner(out[name], seen, scale)[None])
            for name, scale in _CONDITIONS.items()
        }

    def _decode_latent(self, z0: Floats, canvas: Canvas, share: float) -> None:
        """Blend x̂ into the canvas, which holds the coarse picture."""
        coarse = canvas.image
        for tile, large in self._tiles("vae_decode", z0.shape[1] // LATENT, z0.shape[2] // LATENT):
            if large and coarse is canvas.image:
                # The halo of a tile must show the coarse picture, not what has been blended into it.
                coarse = canvas.image.copy()
            inputs = {
                "z0": np.ascontiguousarray(z0[None, :, *times(tile.padded, LATENT)]),
                "x_tilde": patch(coarse, times(tile.padded, Y_STRIDE)),
            }
            out = self._receive("vae_decode", inputs, large=large)
            canvas.put(times(tile.core, Y_STRIDE), inner(out["x_hat"], tile, Y_STRIDE), share)

    def _latent_channels(self) -> int:
        deviations = self._decoder.get("latent_std")
        if deviations is None or deviations.ndim != 1 or deviations.size > MAX_LATENT:
            raise WeightsError(f"{self._folder} has no latent_std of 1 to {MAX_LATENT} channels")
        return int(deviations.size)

    def _tiles(
        self, graph: str, rows: int, columns: int, stride: int = Y_STRIDE, side: int = DECODER_TILE
    ) -> Iterator[tuple[Tile, bool]]:
        """Yield the tiles of a graph (`tiling.cut`); work can be interrupted before each."""
        for tile, large in self._cut(graph, rows, columns, stride, side):
            checkpoint(area(tile.padded) * stride**2)
            yield tile, large

    def _cut(
        self, graph: str, rows: int, columns: int, stride: int = Y_STRIDE, side: int = DECODER_TILE
    ) -> Iterator[tuple[Tile, bool]]:
        return cut(rows, columns, stride, self._tile or side, self.manifest.halo_of(graph))

    def _receive(self, graph: str, inputs: Tensors, *, large: bool) -> Tensors:
        """Run one of the receiver's graphs.

        Raises:
            WeightsError: the folder holds only the encoder.
        """
        if not self._decoder:
            raise WeightsError(f"{self._folder} holds the encoder alone: it sends pictures, and decodes none")
        return self._sessions.run(graph, self._decoder, inputs, large=large)

    def _encoder_weights(self) -> Arrays:
        with self._lock:
            if self._encoder is None:
                self._encoder = read_network(self._folder, "encoder", self.manifest.encoder_hash)
            return self._encoder


def _widened(part: slice, halo: int, size: int) -> tuple[slice, slice]:
    """Return a part of an axis with its halo, cut at the border, and the position of the part inside it."""
    first, last = max(0, part.start - halo), min(size, part.stop + halo)
    return slice(first, last), slice(part.start - first, part.stop - first)


def _noise(seed: int, channels: int, height: int, width: int) -> Floats:
    """Make the noise of a whole latent, [channels, height, width], in strips: its 64-bit words are larger
    than the latent."""
    noise = np.empty((channels, height, width), np.float32)
    for start in range(0, height, _NOISE_ROWS):
        rows = slice(start, min(start + _NOISE_ROWS, height))
        noise[:, rows] = normal_noise(seed, rows, slice(0, width), channels)
    return noise
