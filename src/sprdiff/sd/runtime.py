"""The networks of preset `sd` on torch, with the interface of `OnnxRuntime`, on a GPU or a CPU.

    pixels ─ triple encoder, tiles ─► fused at 1/16 ─ analysis ─► y, z

    ŷ, means, features ─ synthesis, reconstruction ─► x̃ ───────────────────── × (1 − realism) ─┐
           └────► ẑ, c_pix, c_sem ─ UNet, tiles ─► z0 ─ VAE decoder, tiles ─ colours ─► x̂ × realism ─+─►

The new modules are convolutions, whose tiles have a halo and agree with the whole. The pretrained ones
normalise and attend over all they see: their tiles overlap with smooth weights (`blend`), and what drifts in
colour is moved to the coarse picture's. The original is never at hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from ..errors import DeviceError, DialError, EffortError, WeightsError
from ..format.constants import FRACTION
from ..format.entropy import EntropyModel, Exact
from ..imageio.resize import Tile, area, tiles
from ..interrupt import checkpoint
from ..models.latent_codec import Quantised
from ..runtime.blend import cell_means, match_colours, parts
from ..runtime.tiling import times
from ..runtime.weights import Manifest
from .assemble import pick_device
from .precision import choose_precision, dtype_of, products
from .tiling import CELL, LATENT, Floats, Tiling, finished, mix

if TYPE_CHECKING:
    from .model import SDSPRDiff

P = ParamSpec("P")
R = TypeVar("R")


def _guarded(method: Callable[Concatenate[TorchRuntime, P], R]) -> Callable[Concatenate[TorchRuntime, P], R]:
    """Run a method without gradients, in the runtime's precision, and with a clear error when memory runs
    out."""

    @functools.wraps(method)
    def run(self: TorchRuntime, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with torch.inference_mode(), products(self.precision):
                return method(self, *args, **kwargs)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
                raise
            raise DeviceError(
                f"{self.device} has too little memory for tiles of {self.tiling.denoiser} pixels: "
                f"give a smaller tile (tile={max(128, self.tiling.denoiser // 128 * CELL)}), half precision "
                "or another device"
            ) from error

    return run


class TorchRuntime:
    """The networks of one trained SPRDiff of preset `sd`.

    Attributes:
        manifest: which networks these are.
        entropy: the exact part.
        weights_hash: H.
        device, precision: where the networks run, and in which of `PRECISIONS`.
        tiling: how large pictures are cut.
    """

    def __init__(
        self,
        model: SDSPRDiff,
        entropy: EntropyModel,
        manifest: Manifest,
        *,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
    ) -> None:
        """Move the model to its device; it cannot be trained any more then.

        Args:
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto``: a GPU if there is one.
            precision: of UNet, DINOv2 and the VAE's encoder: ``fp32``, ``tf32``, ``fp16``, ``bf16``;
                ``auto``: on a GPU the fastest that keeps the clean latent within 0.02 (`precision.BUDGET`),
                elsewhere ``fp32``. The VAE's decoder, whose rounding would be seen, stays in float32.
            tile: side of all tiles in pixels, a multiple of 64; None: as `Tiling` says.

        Raises:
            DeviceError: there is no such device, or too little memory on it.
            WeightsError: the exact part is for networks with another grid.
            ValueError: tile or precision are none.
        """
        self.device = pick_device(device)
        self.precision = choose_precision(precision, model.denoiser.gain, self.device)
        self.tiling = Tiling() if tile is None else Tiling.of(tile)
        if entropy.stride != CELL:
            raise WeightsError(
                f"the integer arrays have latents at 1/{entropy.stride}, the networks at 1/{CELL}"
            )
        self.entropy, self.manifest = entropy, manifest
        self.weights_hash = manifest.weights_hash
        self.model = model.eval().requires_grad_(False)
        self._place(dtype_of(self.precision))

    @_guarded
    def _place(self, kind: torch.dtype) -> None:
        encoder = self.model.triple_encoder
        for module in (encoder.vae, encoder.semantic.backbone, self.model.denoiser.unet):
            nn.Module.to(module, kind)  # diffusers' own method warns of modules that these networks lack
        self.model.to(self.device)

    @_guarded
    def analyse(self, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Compute unscaled y [Cy, ceil(H/64), ceil(W/64)] and z on a quarter of that grid, float32, from
        pixels uint8 [H, W, 3]."""
        rows, columns = (-(-side // CELL) for side in pixels.shape[:2])
        wanted = [
            (0, cells * CELL - side) for cells, side in zip((rows, columns), pixels.shape, strict=False)
        ]
        padded = np.pad(pixels, [*wanted, (0, 0)], "edge")
        t, scale = self.tiling, CELL // 4
        grid = (4 * rows, 4 * columns)

        def encode(place: tuple[slice, slice]) -> Tensor:
            patch = torch.from_numpy(np.ascontiguousarray(padded[times(place, scale)])).to(self.device)
            return self.model.triple_encoder(patch.permute(2, 0, 1)[None].float() / 255)

        fused = self._blended(grid, (t.encoder // scale, t.encoder_overlap // scale, CELL // scale), encode)
        y, z = self.model.latent_codec.analyse(fused)
        return _numpy(y[0]), _numpy(z[0])

    def refine(self, *_: object) -> Floats:
        """Refuse: only preset `tiny` can refine.

        Raises:
            EffortError: always.
        """
        raise EffortError("only networks of preset tiny can be refined (effort)")

    @_guarded
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
        """Decode what is known exactly; arguments and result are those of `OnnxRuntime.decode`.

        Args:
            steps: evaluations of the UNet, of which there is one. seed: has no effect, as no noise is drawn.

        Raises:
            DialError: more than one step: the UNet is trained for its last timestep alone, from ẑ.
        """
        if steps != 1:
            raise DialError(
                f"preset sd evaluates its UNet once, not {steps} times: it is trained at one timestep only"
            )
        rows, columns = exact.y_hat.shape[1:]
        coarse, means, conditions = self._reconstruct(exact, level, keep=realism > 0)
        if realism > 0:
            z0 = self._denoise(*conditions)
            del conditions
            picture = self._decode_latent(z0)
            match_colours(picture, means, CELL)
            coarse = picture if realism == 1 else mix(coarse, picture, realism)
        height, width = size or (CELL * rows, CELL * columns)
        return finished(coarse[:, :height, :width], np.dtype(dtype))

    def _reconstruct(self, exact: Exact, level: int, *, keep: bool) -> tuple[Floats, Floats, list[Tensor]]:
        """Compute x̃ [3, H, W], the means of its cells, and ẑ, c_pix and c_sem [1, C, ...] (if `keep`)."""
        rows, columns = exact.y_hat.shape[1:]
        t = self.tiling
        levels = torch.tensor([float(level)], device=self.device)
        coarse = np.empty((3, CELL * rows, CELL * columns), np.float32)
        kept: list[Tensor] = []
        for tile in tiles(rows, columns, t.receiver // CELL, t.halo // CELL, 1):
            checkpoint(area(tile.padded) * CELL**2)
            found = self.model.receive(self._known(exact, tile, level), levels)
            inner = found.coarse[0][:, *times(tile.inner, CELL)].clamp(0, 1)
            coarse[:, *times(tile.core, CELL)] = _numpy(inner)
            for i, value in enumerate((found.z_est, found.c_pix, found.c_sem) if keep else ()):
                scale = 1 if value is found.c_sem else CELL // LATENT
                if len(kept) <= i:
                    kept.append(value.new_empty(1, value.shape[1], scale * rows, scale * columns))
                kept[i][:, :, *times(tile.core, scale)] = value[:, :, *times(tile.inner, scale)]
        return coarse, cell_means(coarse, CELL), kept

    def _known(self, exact: Exact, tile: Tile, level: int) -> Quantised:
        """Return what is known exactly of all that a tile sees, in the form that the networks take."""

        def tensor(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[None])).to(self.device)

        latents = (np.ascontiguousarray(part[:, *tile.padded]) for part in (exact.y_hat, exact.mu))
        y_hat, means = (tensor(self.entropy.dequantise(part, level)) for part in latents)
        features = tensor(exact.h[:, *tile.padded].astype(np.float32) / np.float32(2**FRACTION))
        nothing = y_hat.new_zeros(1)
        return Quantised(y_hat, means, features, nothing, nothing)

    def _denoise(self, z_est: Tensor, c_pix: Tensor, c_sem: Tensor) -> Tensor:
        t, cell = self.tiling, CELL // LATENT
        pooled, ones = c_sem.mean((2, 3)), z_est.new_ones(1)

        def denoise(place: tuple[slice, slice]) -> Tensor:
            semantic = c_sem[:, :, *(slice(s.start // cell, s.stop // cell) for s in place)]
            return self.model.denoiser(z_est[:, :, *place], ones, c_pix[:, :, *place], semantic, pooled)

        sides = (t.denoiser // LATENT, t.denoiser_overlap // LATENT, cell)
        return self._blended((z_est.shape[2], z_est.shape[3]), sides, denoise)

    def _decode_latent(self, z0: Tensor) -> Floats:
        """Compute x̂ [3, H, W] in the memory of the host; a GPU holds only one tile of it at a time."""
        t = self.tiling
        picture = np.zeros((3, LATENT * z0.shape[2], LATENT * z0.shape[3]), np.float32)
        total = np.zeros(picture.shape[1:], np.float32)
        for part in parts(*picture.shape[1:], t.decoder, t.decoder_overlap, CELL):
            checkpoint(area(part.place))
            latent = z0[:, :, *(slice(s.start // LATENT, s.stop // LATENT) for s in part.place)]
            # NaN, which damaged latents can lead to, becomes black rather than a hole in its neighbours.
            image = self.model.decode_latent(latent)[0].clamp(0, 1).nan_to_num(0.0)
            picture[:, *part.place] += _numpy(image) * part.weight
            total[part.place] += part.weight
        picture /= total
        return picture

    def _blended(
        self, grid: tuple[int, int], sides: tuple[int, int, int], run: Callable[[tuple[slice, slice]], Tensor]
    ) -> Tensor:
        """Compute [1, C, *grid] from overlapping tiles; `sides` are that of a tile, what two tiles share, and
        the multiple at which they begin."""
        whole: Tensor | None = None
        total = torch.zeros(grid, device=self.device)
        for part in parts(*grid, *sides):
            checkpoint(area(part.place) * (CELL // sides[2]) ** 2)
            value = run(part.place)
            if value.shape[2:] == grid:
                return value
            weight = torch.from_numpy(part.weight).to(self.device)
            whole = value.new_zeros(1, value.shape[1], *grid) if whole is None else whole
            whole[:, :, *part.place] += value * weight
            total[part.place] += weight
        assert whole is not None  # a grid has at least one tile
        return whole / total


def _numpy(value: Tensor) -> Floats:
    found: Floats = value.float().cpu().numpy()
    return found
