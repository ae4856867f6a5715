"""The first generation's networks on onnxruntime: pixels to latents and back, in overlapping tiles with
limited memory.

    pixels ─ encoder ─► y, z              (then the exact part codes them: `format.entropy`)
    ŷ ─ coarse ─► x̃ ─────────────────────────────────────────────┬─── × (1 − realism) ─┐
           └────► ẑ, c_pix, c_sem ─ denoise, steps times ─► z0 ─ vae_decode ─► x̂ × realism ─+─► picture

Each arrow runs over the whole picture, tile by tile, before the next begins. The arrays between them are at
1/16 and 1/32 and small. Therefore every graph needs only a halo of its own, and more steps need no larger
tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import WeightsError
from ..format.entropy import Exact
from .base import FolderRuntime
from .canvas import Canvas
from .noise import normal_noise
from .sessions import Tensors
from .tiling import Y_STRIDE, Floats, inner, patch, store, times
from .weights import read_arrays

if TYPE_CHECKING:
    from ..models.first.sprdiff import SPRDiff

NOISE_KERNEL = "vae_decoder.noise.weight"
"""The weight whose shape tells how many channels of noise the VAE decoder takes, at 1/4 of the picture."""
MAX_NOISE_CHANNELS = 64


class FirstRuntime(FolderRuntime):
    """The networks of a weights folder of the first generation."""

    def _torch_model(self) -> SPRDiff:
        from ..models.first.stored import load_first

        return load_first(self._folder, read_arrays)

    def decode(self, exact: Exact, *, level: int, **dials: Any) -> NDArray[Any]:
        """Decode what is known exactly; the dials are those of `synthesise`."""
        return self.synthesise(self.entropy.dequantise(exact.y_hat, level), level=level, **dials)

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
        """Compute the picture of unscaled ŷ, float32 [Cy, yh, yw].

        Args:
            level: the quality level with which ŷ was coded.
            realism: 0 (coarse picture) to 1 (decoded picture), linear between; 0 runs only the coarse graph.
            steps: the steps of the denoiser, at least 1.
            seed: the seed of the noise, 0 .. 2^64 - 1: for texture (step 0) and between steps.
            size: (height, width) to crop to; None: all of 32 yh x 32 yw.
            dtype: float32 for a picture in 0-1, or uint8 in 0-255.

        Returns:
            The picture, [height, width, 3].
        """
        grid = y_hat.shape[1:]
        # Whole cells, because the VAE decoder also sees the coarse picture beyond the border.
        canvas = Canvas((Y_STRIDE * grid[0], Y_STRIDE * grid[1]), dtype)
        parts = self._reconstruct(y_hat, level, canvas, keep=realism > 0)
        if realism > 0:
            z0 = self._denoise(parts, steps, seed)
            del parts  # for a large picture the conditions are the largest arrays
            self._decode_latent(z0, canvas, realism, seed)
        height, width = size or canvas.image.shape[:2]
        return canvas.image[:height, :width]

    def _reconstruct(self, y_hat: Floats, level: int, canvas: Canvas, *, keep: bool) -> Tensors:
        """Paint the coarse picture; return ẑ, c_pix and c_sem of the whole picture (if `keep`)."""
        rows, columns = y_hat.shape[1:]
        levels = np.array([level], np.float32)
        parts: Tensors = {}
        for tile, large in self._tiles("coarse", rows, columns):
            inputs = {"y_hat": np.ascontiguousarray(y_hat[None, :, *tile.padded]), "level": levels}
            out = self._receive("coarse", inputs, large=large)
            canvas.put(times(tile.core, Y_STRIDE), inner(out.pop("x_tilde"), tile, Y_STRIDE))
            for name, value in out.items() if keep else ():
                scale = 1 if name == "c_sem" else 2
                shape = (value.shape[1], scale * rows, scale * columns)
                store(parts.setdefault(name, np.empty(shape, np.float32)), value, tile, scale)
        return parts

    def _denoise(self, parts: Tensors, steps: int, seed: int) -> Floats:
        """Compute z0 [Z, 2 yh, 2 yw]: from ẑ in one step, in further steps from points with noise closer
        to it."""
        z0 = parts["z_est"]
        for step in range(steps):
            z0 = self._denoise_once(parts, z0, step, 1 - step / steps, seed)
        return z0

    def _denoise_once(self, parts: Tensors, z0: Floats, step: int, t: float, seed: int) -> Floats:
        time = np.array([t], np.float32)
        rows, columns = parts["c_sem"].shape[1:]
        result = np.empty_like(z0)
        for tile, large in self._tiles("denoise", rows, columns):
            part = times(tile.padded, 2)
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
            out = self._receive("denoise", inputs, large=large)
            store(result, out["z0"], tile, 2)
        return result

    def _decode_latent(self, z0: Floats, canvas: Canvas, realism: float, seed: int) -> None:
        """Blend x̂ into the canvas, which holds the coarse picture."""
        pieces = list(self._tiles("vae_decode", z0.shape[1] // 2, z0.shape[2] // 2))
        # The halo of a tile must show the coarse picture, not what has been blended into it.
        coarse = canvas.image.copy() if len(pieces) > 1 else canvas.image
        for tile, large in pieces:
            inputs = {
                "z0": np.ascontiguousarray(z0[None, :, *times(tile.padded, 2)]),
                "x_tilde": patch(coarse, times(tile.padded, Y_STRIDE)),
                "noise": normal_noise(seed, 0, *times(tile.padded, 8), self._noise_channels())[None],
            }
            out = self._receive("vae_decode", inputs, large=large)
            canvas.put(times(tile.core, Y_STRIDE), inner(out["x_hat"], tile, Y_STRIDE), realism)

    def _noise_channels(self) -> int:
        kernel = self._decoder.get(NOISE_KERNEL)
        if kernel is None or kernel.ndim != 4 or not 1 <= kernel.shape[1] <= MAX_NOISE_CHANNELS:
            raise WeightsError(f"{self._folder} has no {NOISE_KERNEL} of 1 to {MAX_NOISE_CHANNELS} channels")
        return int(kernel.shape[1])
