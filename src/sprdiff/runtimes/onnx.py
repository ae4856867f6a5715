"""The networks on onnxruntime: pixels to latents and back, in overlapping tiles with bounded memory.

    pixels ─ encoder ─► y, z              (then the exact part codes them: `bitstream.entropy`)

    ŷ ─ coarse ─► x̃ ─────────────────────────────────────────────┬─── × (1 − realism) ─┐
           └────► ẑ, c_pix, c_sem ─ denoise, steps times ─► z0 ─ vae_decode ─► x̂ × realism ─+─► picture

Each arrow goes over the whole picture, tile by tile, before the next begins. What lies between is at 1/16 and
1/32 and small, so every graph only needs a halo of its own, and any number of steps needs no larger tiles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..bitstream.entropy import EntropyModel
from ..bitstream.weights_hash import canonical_hash
from ..errors import EffortError, WeightsError
from ..image_tiles import Slices, Tile, tiles
from ..limits import checkpoint
from .canvas import Canvas
from .noise import normal_noise
from .sessions import Sessions, Tensors
from .weights import Arrays, default_folder, read_arrays, read_manifest

if TYPE_CHECKING:
    from ..models.sprdiff import SPRDiff

Floats = NDArray[np.float32]

ENCODER_TILE, DECODER_TILE = 2048, 1536
"""Largest side of what one run of a graph computes, in pixels, without the halo. Both take some 500 MB."""
Y_STRIDE, Z_STRIDE = 32, 64
"""Pixels per position of the grids of y and of z; the VAE latent has twice the resolution of y."""
NOISE_KERNEL = "vae_decoder.noise.weight"
"""Tells how many channels of noise the VAE decoder takes, at 1/4 of the picture."""

MAX_NOISE_CHANNELS = 64


class OnnxRuntime:
    """The networks of one weights folder.

    Attributes:
        manifest: what the folder says about itself.
        entropy: the exact part.
        weights_hash: H, computed from the arrays.
    """

    def __init__(
        self, weights_dir: Path | str | None = None, threads: int | None = None, tile: int | None = None
    ) -> None:
        """Read and check the exact part and the decoder's weights; graphs are loaded when first needed.

        Args:
            weights_dir: a weights folder; None: the one that comes with the package.
            threads: of the networks; None: one for each core.
            tile: largest side of a tile in pixels; None: `ENCODER_TILE` and `DECODER_TILE`.

        Raises:
            WeightsError: the folder is incomplete or damaged, or its arrays are not what its manifest names.
        """
        self._folder = default_folder() if weights_dir is None else Path(weights_dir)
        self.manifest = read_manifest(self._folder)
        exact = read_arrays(self._folder / "entropy.npz")
        self._decoder = read_arrays(self._folder / "decoder.npz")
        self.weights_hash = canonical_hash(exact, self._decoder)
        if self.weights_hash != self.manifest.weights_hash:
            raise WeightsError(f"{self._folder} is damaged: its arrays do not have the hash of its manifest")
        self.entropy = EntropyModel.from_arrays(exact)
        self._encoder: Arrays | None = None
        self._sessions = Sessions(self._folder, self.manifest, threads)
        self._lock = threading.Lock()
        self._tile = tile
        self._threads = threads
        self._model: SPRDiff | None = None

    def analyse(self, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """uint8 [H, W, 3] -> unscaled y [Cy, ceil(H/32), ceil(W/32)] and z on half of that grid, float32."""
        height, width = pixels.shape[:2]
        rows, columns = -(-height // Z_STRIDE), -(-width // Z_STRIDE)
        y = np.empty((self.entropy.y_channels, 2 * rows, 2 * columns), np.float32)
        z = np.empty((self.entropy.z_channels, rows, columns), np.float32)
        for tile, large in self._tiles("encoder", rows, columns, Z_STRIDE):
            inputs = {"image": _patch(pixels, _times(tile.padded, Z_STRIDE))}
            out = self._sessions.run("encoder", self._encoder_weights(), inputs, large=large)
            _store(y, out["y"], tile, 2)
            _store(z, out["z"], tile, 1)
        return y[:, : -(-height // Y_STRIDE), : -(-width // Y_STRIDE)], z

    def refine(
        self,
        pixels: NDArray[np.uint8],
        y: Floats,
        z: Floats,
        level: int,
        effort: int,
        report: Callable[[float], None] | None = None,
    ) -> Floats:
        """Another y, that costs fewer bits for what it brings at a level: `effort.refine`, for an effort of 1-9.

        Raises:
            EffortError: torch is not installed.
        """
        try:
            from ..models.stored import load_folder
            from .effort import ROUNDS, refine, torch_threads
        except ImportError as error:
            raise EffortError("effort needs torch: pip install 'sprdiff[train]'") from error
        with self._lock:
            if self._model is None:
                self._model = load_folder(self._folder, read_arrays).eval().requires_grad_(False)
        with torch_threads(self._threads):
            return refine(self._model, pixels, y, z, level, rounds=ROUNDS[effort], report=report)

    def synthesise(
        self,
        y_hat: Floats,
        *,
        level: int,
        realism: float = 1.0,
        steps: int = 1,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """The picture of unscaled ŷ, float32 [Cy, yh, yw].

        Args:
            level: quality level that ŷ was coded with.
            realism: 0 (coarse picture) to 1 (decoded picture), linear between; 0 runs the coarse graph only.
            steps: of the denoiser, at least 1.
            seed: of the noise, that of texture (step 0) and that between steps; 0 .. 2^64 - 1.
            size: (height, width) to crop to; None: all of 32 yh x 32 yw.
            dtype: float32, the picture is in 0-1; or uint8, it is in 0-255.

        Returns:
            [height, width, 3].
        """
        grid = y_hat.shape[1:]
        # Whole cells, for the VAE decoder looks at the coarse picture beyond the border too.
        canvas = Canvas((Y_STRIDE * grid[0], Y_STRIDE * grid[1]), dtype)
        parts = self._reconstruct(y_hat, level, canvas, keep=realism > 0)
        if realism > 0:
            z0 = self._denoise(parts, steps, seed)
            del parts  # the conditions are the largest arrays of all when the picture is large
            self._decode_latent(z0, canvas, realism, seed)
        height, width = size or canvas.image.shape[:2]
        return canvas.image[:height, :width]

    def _reconstruct(self, y_hat: Floats, level: int, canvas: Canvas, *, keep: bool) -> Tensors:
        """Paint the coarse picture; returns ẑ, c_pix and c_sem of the whole picture (if `keep`)."""
        rows, columns = y_hat.shape[1:]
        levels = np.array([level], np.float32)
        parts: Tensors = {}
        for tile, large in self._tiles("coarse", rows, columns, Y_STRIDE):
            inputs = {"y_hat": np.ascontiguousarray(y_hat[None, :, *tile.padded]), "level": levels}
            out = self._sessions.run("coarse", self._decoder, inputs, large=large)
            canvas.put(_times(tile.core, Y_STRIDE), _inner(out.pop("x_tilde"), tile, Y_STRIDE))
            for name, value in out.items() if keep else ():
                scale = 1 if name == "c_sem" else 2
                shape = (value.shape[1], scale * rows, scale * columns)
                _store(parts.setdefault(name, np.empty(shape, np.float32)), value, tile, scale)
        return parts

    def _denoise(self, parts: Tensors, steps: int, seed: int) -> Floats:
        """z0 [Z, 2 yh, 2 yw]: from ẑ in one step; in further ones from points with noise nearer to it."""
        z0 = parts["z_est"]
        for step in range(steps):
            z0 = self._denoise_once(parts, z0, step, 1 - step / steps, seed)
        return z0

    def _denoise_once(self, parts: Tensors, z0: Floats, step: int, t: float, seed: int) -> Floats:
        time = np.array([t], np.float32)
        rows, columns = parts["c_sem"].shape[1:]
        result = np.empty_like(z0)
        for tile, large in self._tiles("denoise", rows, columns, Y_STRIDE):
            part = _times(tile.padded, 2)
            z_t = parts["z_est"][:, *part]
            if step > 0:
                noise = normal_noise(seed, step, *part, len(z0))
                z_t = (1 - time) * z0[:, *part] + time * (z_t + np.float32(self.manifest.noise_scale) * noise)
            inputs = {
                "z_t": np.ascontiguousarray(z_t[None]),
                "t": time,
                "c_pix": np.ascontiguousarray(parts["c_pix"][None, :, *part]),
                "c_sem": np.ascontiguousarray(parts["c_sem"][None, :, *tile.padded]),
            }
            out = self._sessions.run("denoise", self._decoder, inputs, large=large)
            _store(result, out["z0"], tile, 2)
        return result

    def _decode_latent(self, z0: Floats, canvas: Canvas, realism: float, seed: int) -> None:
        """Blend x̂ into the canvas, which holds the coarse picture."""
        cut = list(self._tiles("vae_decode", z0.shape[1] // 2, z0.shape[2] // 2, Y_STRIDE))
        # The halo of a tile must show the coarse picture, not what has been blended into it.
        coarse = canvas.image.copy() if len(cut) > 1 else canvas.image
        for tile, large in cut:
            checkpoint()
            inputs = {
                "z0": np.ascontiguousarray(z0[None, :, *_times(tile.padded, 2)]),
                "x_tilde": _patch(coarse, _times(tile.padded, Y_STRIDE)),
                "noise": normal_noise(seed, 0, *_times(tile.padded, 8), self._noise_channels())[None],
            }
            out = self._sessions.run("vae_decode", self._decoder, inputs, large=large)
            canvas.put(_times(tile.core, Y_STRIDE), _inner(out["x_hat"], tile, Y_STRIDE), realism)

    def _tiles(self, graph: str, rows: int, columns: int, stride: int) -> Iterator[tuple[Tile, bool]]:
        """Tiles of a grid whose positions are `stride` pixels apart, and whether there are several.

        Work can be stopped before each. A halo ends at the border of the picture, so that a graph sees zeros
        exactly where it would see them in the whole picture.
        """
        side = self._tile or (ENCODER_TILE if graph == "encoder" else DECODER_TILE)
        tile, halo = max(1, side // stride), -(-self.manifest.halo_of(graph) // stride)
        large = max(rows, columns) > tile
        for part in tiles(rows, columns, tile, halo, 1):
            checkpoint()
            yield part, large

    def _noise_channels(self) -> int:
        kernel = self._decoder.get(NOISE_KERNEL)
        if kernel is None or kernel.ndim != 4 or not 1 <= kernel.shape[1] <= MAX_NOISE_CHANNELS:
            raise WeightsError(f"{self._folder} has no {NOISE_KERNEL} of 1 to {MAX_NOISE_CHANNELS} channels")
        return int(kernel.shape[1])

    def _encoder_weights(self) -> Arrays:
        with self._lock:
            if self._encoder is None:
                self._encoder = read_arrays(self._folder / "encoder.npz")
            return self._encoder


def _times(part: Slices, factor: int) -> Slices:
    """The same part of a grid that is `factor` times finer."""
    rows, columns = part
    return (
        slice(rows.start * factor, rows.stop * factor),
        slice(columns.start * factor, columns.stop * factor),
    )


def _patch(pixels: NDArray[Any], part: Slices) -> Floats:
    """Part of a picture, uint8 or float32 in 0-1, as float32 [1, 3, h, w] in 0-1; edges repeat beyond the border."""
    patch = pixels[part]
    missing = [(0, s.stop - s.start - n) for s, n in zip(part, patch.shape, strict=False)]
    if any(after for _, after in missing):
        patch = np.pad(patch, [*missing, (0, 0)], "edge")
    image = patch.transpose(2, 0, 1)[None].astype(np.float32, order="C")
    if pixels.dtype == np.uint8:
        image *= np.float32(1 / 255)
    return image


def _inner(value: Floats, tile: Tile, scale: int) -> Floats:
    """The core of a graph's output [1, C, h, w] on a grid `scale` times finer than the tile's.

    Raises:
        WeightsError: the output does not have the size that it must have.
    """
    expected = tuple((s.stop - s.start) * scale for s in tile.padded)
    if value.ndim != 4 or value.shape[2:] != expected:
        raise WeightsError(f"a graph gives an output of shape {value.shape} where {expected} is due")
    return value[0, :, *_times(tile.inner, scale)]


def _store(whole: Floats, value: Floats, tile: Tile, scale: int) -> None:
    core = _inner(value, tile, scale)
    if len(core) != len(whole):
        raise WeightsError(f"a graph gives {len(core)} channels where {len(whole)} are due")
    whole[:, *_times(tile.core, scale)] = core
