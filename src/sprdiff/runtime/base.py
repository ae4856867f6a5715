"""What the runtimes of all generations share: a folder's arrays, its tiles, and the encoder's networks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..common.extras import needed
from ..common.progress import Report
from ..errors import EffortError, WeightsError
from ..format.entropy import EntropyModel
from ..imageio.resize import Tile, area
from ..interrupt import checkpoint
from .sessions import Sessions, Tensors
from .tiling import DECODER_TILE, ENCODER_TILE, Y_STRIDE, Z_STRIDE, Floats, cut, patch, store, times
from .weights import Arrays, Manifest, check_hash, read_arrays, read_manifest, sends_only

if TYPE_CHECKING:
    from .search import Model


class FolderRuntime(ABC):
    """The networks of one weights folder of any generation.

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
        self._decoder: Arrays = {} if sends_only(folder) else read_arrays(folder / "decoder.npz")
        self.weights_hash = self.manifest.weights_hash
        check_hash(folder, "exact part", exact, self.weights_hash)
        if self._decoder:
            check_hash(folder, "decoder", self._decoder, self.manifest.decoder_hash)
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
        self._model: Model | None = None

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
            from .search import ROUNDS, refine, torch_threads
        with self._lock:
            if self._model is None:
                self._model = self._torch_model().eval().requires_grad_(False)
        with torch_threads(self._threads):
            tables = self.entropy.level_tables(level)
            return refine(self._model, tables, pixels, y, z, level, rounds=ROUNDS[effort], report=report)

    @abstractmethod
    def _torch_model(self) -> Model:
        """Return the torch modules of the folder; torch must be installed."""

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
                encoder = read_arrays(self._folder / "encoder.npz")
                check_hash(self._folder, "encoder", encoder, self.manifest.encoder_hash)
                self._encoder = encoder
            return self._encoder
