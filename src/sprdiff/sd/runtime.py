"""The networks of preset `sd` on torch: the interface of `OnnxRuntime`, on a GPU or a CPU.

    pixels ─ triple encoder, tiles ─► fused at 1/16 ─ analysis ─► y, z

    ŷ ─ synthesis, reconstruction ─► x̃ ────────────────────────────────────── × (1 − realism) ─┐
           └────► ẑ, c_pix, c_sem ─ UNet, tiles ─► z0 ─ VAE decoder, tiles ─ colours ─► x̂ × realism ─+─► picture

The new modules are convolutions, whose tiles have a halo and agree with the whole. The pretrained ones
normalise and attend over all they see: their tiles overlap with smooth weights (`blend`), and what drifts in colour
is moved to the coarse picture's. The original is never at hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from ..errors import DeviceError, DialError, EffortError, WeightsError
from ..format.entropy import EntropyModel, Exact
from ..imageio.resize import area, tiles
from ..interrupt import checkpoint
from ..models.config import EXACT
from ..runtime.blend import cell_means, match_colours, parts
from ..runtime.weights import Manifest
from .folder import Trained

if TYPE_CHECKING:
    from .model import SDSPRDiff

Floats = NDArray[np.float32]

CELL = 64
"""Pixels of a position of y; pictures are padded to multiples of it. Also the cell of colour correction."""
LATENT = 8
"""Pixels of a position of the VAE's latent."""
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Tiling:
    """Side of tiles and what neighbours share, in pixels, multiples of 64.

    The UNet has seen 512 to 768 pixels in training and its attention costs the square; the encoders get more
    around every place, since what they miss is lost for good; the decoder of the VAE looks least far.
    """

    encoder: int = 1024
    encoder_overlap: int = 256
    denoiser: int = 768
    denoiser_overlap: int = 256
    decoder: int = 768
    decoder_overlap: int = 128
    receiver: int = 2048
    halo: int = 832

    @classmethod
    def of(cls, side: int) -> Tiling:
        """All tiles of one side, at least 128; overlaps are a third and a sixth of it.

        Raises:
            ValueError: the side is no such multiple of 64.
        """
        if side < 128 or side % CELL:
            raise ValueError(f"the side of a tile must be a multiple of 64 of at least 128 pixels, not {side}")
        third, sixth = (max(1, side // CELL // n) * CELL for n in (3, 6))
        return cls(side, third, side, third, side, sixth, side)


def _guarded(method: Callable[Concatenate[TorchRuntime, P], R]) -> Callable[Concatenate[TorchRuntime, P], R]:
    """Without gradients, and with a clear error where memory ends."""

    @functools.wraps(method)
    def run(self: TorchRuntime, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with torch.inference_mode():
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
        device, dtype: where the networks run, and in which precision the pretrained ones do.
        tiling: how large pictures are cut.
    """

    def __init__(
        self,
        model: SDSPRDiff,
        entropy: EntropyModel,
        manifest: Manifest,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tile: int | None = None,
    ) -> None:
        """Move the model to its device; it is no longer for training then.

        Args:
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto``: a GPU if there is one.
            dtype: ``float32``, ``float16`` or ``bfloat16`` for UNet, DINOv2 and the VAE's encoder; ``auto``:
                bfloat16 on a GPU. The VAE's decoder, whose rounding would be seen, stays in float32.
            tile: side of all tiles in pixels, a multiple of 64; None: as `Tiling` says.

        Raises:
            DeviceError: there is no such device, or too little memory on it.
            WeightsError: the exact part is for networks with another grid.
            ValueError: tile or dtype are none.
        """
        self.device, self.dtype = pick_device(device), dtype
        kind = _dtype(dtype, self.device)
        self.tiling = Tiling() if tile is None else Tiling.of(tile)
        if entropy.stride != CELL:
            raise WeightsError(f"the integer arrays have latents at 1/{entropy.stride}, the networks at 1/{CELL}")
        self.entropy, self.manifest = entropy, manifest
        self.weights_hash = manifest.weights_hash
        self.model = model.eval().requires_grad_(False)
        self._place(kind)

    @_guarded
    def _place(self, kind: torch.dtype) -> None:
        encoder = self.model.triple_encoder
        for module in (encoder.vae, encoder.semantic.backbone, self.model.denoiser.unet):
            nn.Module.to(module, kind)  # diffusers' own warns of modules that these do not have
        self.model.to(self.device)

    @_guarded
    def analyse(self, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """uint8 [H, W, 3] -> unscaled y [Cy, ceil(H/64), ceil(W/64)] and z on a quarter of that grid, float32."""
        rows, columns = (-(-side // CELL) for side in pixels.shape[:2])
        wanted = [(0, cells * CELL - side) for cells, side in zip((rows, columns), pixels.shape, strict=False)]
        padded = np.pad(pixels, [*wanted, (0, 0)], "edge")
        t, scale = self.tiling, CELL // 4
        grid = (4 * rows, 4 * columns)

        def encode(place: tuple[slice, slice]) -> Tensor:
            patch = torch.from_numpy(np.ascontiguousarray(padded[_times(place, scale)])).to(self.device)
            return self.model.triple_encoder(patch.permute(2, 0, 1)[None].float() / 255)

        fused = self._blended(grid, (t.encoder // scale, t.encoder_overlap // scale, CELL // scale), encode)
        y, z = self.model.latent_codec.analyse(fused)
        return _numpy(y[0]), _numpy(z[0])

    def refine(self, *_: object) -> Floats:
        """Only preset `tiny` can.

        Raises:
            EffortError: always.
        """
        raise EffortError("effort is for preset tiny")

    def decode(self, exact: Exact, *, level: int, **dials: Any) -> NDArray[Any]:
        """The picture of what is known exactly; dials as of `synthesise`."""
        return self.synthesise(self.entropy.dequantise(exact.y_hat, level), level=level, **dials)

    @_guarded
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
        """The picture of unscaled ŷ, float32 [Cy, yh, yw]; arguments and result as of `OnnxRuntime.decode`.

        Raises:
            DialError: more than one step: the UNet is trained for its last timestep alone, from ẑ.
        """
        if steps != 1:
            raise DialError(f"preset sd denoises in one step, not {steps}: its UNet is trained at one timestep only")
        rows, columns = y_hat.shape[1:]
        coarse, means, conditions = self._reconstruct(y_hat, level, keep=realism > 0)
        if realism > 0:
            z0 = self._denoise(*conditions)
            del conditions
            picture = self._decode_latent(z0)
            match_colours(picture, means, CELL)
            coarse = picture if realism == 1 else _mix(coarse, picture, realism)
        height, width = size or (CELL * rows, CELL * columns)
        return _finished(coarse[:, :height, :width], np.dtype(dtype))

    def _reconstruct(self, y_hat: Floats, level: int, *, keep: bool) -> tuple[Floats, Floats, list[Tensor]]:
        """x̃ [3, H, W], the means of its cells, and ẑ, c_pix and c_sem [1, C, ...] (if `keep`)."""
        rows, columns = y_hat.shape[1:]
        t = self.tiling
        levels = torch.tensor([float(level)], device=self.device)
        coarse = np.empty((3, CELL * rows, CELL * columns), np.float32)
        kept: list[Tensor] = []
        for tile in tiles(rows, columns, t.receiver // CELL, t.halo // CELL, 1):
            checkpoint(area(tile.padded) * CELL**2)
            values = np.ascontiguousarray(y_hat[None, :, *tile.padded], dtype=np.float32)
            found = self.model.receive(torch.from_numpy(values).to(self.device), levels)
            inner = found.coarse[0][:, *_times(tile.inner, CELL)].clamp(0, 1)
            coarse[:, *_times(tile.core, CELL)] = _numpy(inner)
            for i, value in enumerate((found.z_est, found.c_pix, found.c_sem) if keep else ()):
                scale = 1 if value is found.c_sem else CELL // LATENT
                if len(kept) <= i:
                    kept.append(value.new_empty(1, value.shape[1], scale * rows, scale * columns))
                kept[i][:, :, *_times(tile.core, scale)] = value[:, :, *_times(tile.inner, scale)]
        return coarse, cell_means(coarse, CELL), kept

    def _denoise(self, z_est: Tensor, c_pix: Tensor, c_sem: Tensor) -> Tensor:
        t, cell = self.tiling, CELL // LATENT
        pooled, ones = c_sem.mean((2, 3)), z_est.new_ones(1)

        def denoise(place: tuple[slice, slice]) -> Tensor:
            semantic = c_sem[:, :, *(slice(s.start // cell, s.stop // cell) for s in place)]
            return self.model.denoiser(z_est[:, :, *place], ones, c_pix[:, :, *place], semantic, pooled)

        sides = (t.denoiser // LATENT, t.denoiser_overlap // LATENT, cell)
        return self._blended((z_est.shape[2], z_est.shape[3]), sides, denoise)

    def _decode_latent(self, z0: Tensor) -> Floats:
        """x̂ [3, H, W], in the memory of the host: on a GPU only one tile of it lies at a time."""
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
        """[1, C, *grid] from overlapping tiles; `sides`: of a tile, of what two share, and what they begin at."""
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


def assemble(
    trained: Trained, weights: Mapping[str, NDArray[Any]], places: Mapping[str, str | Path | None]
) -> SDSPRDiff:
    """The model of a trained folder on its pretrained parts, every weight and every file checked.

    Args:
        weights: the trained weights, by name.
        places: where ``base`` and ``semantic`` lie; None: where they were in training.

    Raises:
        WeightsError: something is missing, unknown, or not what it was trained on.
    """
    from .model import build, load_base, load_semantic

    base, semantic = trained.sources["base"], trained.sources["semantic"]
    model = build(
        load_base(str(places["base"] or base.name), base.revision, base),
        load_semantic(str(places["semantic"] or semantic.name), semantic.revision, semantic),
        trained.config,
    )
    if model.config != trained.config:
        raise WeightsError(f"{trained.folder}: its configuration has other widths than its base models")
    state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}
    # The integer networks are not torch's to run: what they hold here stays as it began.
    kept = {name: value for name, value in model.trained_state().items() if name.startswith(EXACT)}
    try:
        model.load_trained_state(kept | state)
    except WeightsError as error:
        raise WeightsError(f"{trained.folder}: {error}") from error
    return model


def set_threads(count: int | None) -> None:
    """Threads of torch on the CPU, for the whole process; None: as they are."""
    if count is not None:
        torch.set_num_threads(count)


def pick_device(name: str) -> torch.device:
    """A device by name; ``auto`` is a GPU if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise DeviceError(f"there is no device {name!r} here") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"dtype must be float32, float16, bfloat16 or auto, not {name}")
    found: torch.dtype = getattr(torch, name)
    return found


def _times(place: tuple[slice, slice], factor: int) -> tuple[slice, slice]:
    """The same part of a grid that is `factor` times finer."""
    rows, columns = place
    return slice(rows.start * factor, rows.stop * factor), slice(columns.start * factor, columns.stop * factor)


def _numpy(value: Tensor) -> Floats:
    found: Floats = value.float().cpu().numpy()
    return found


def _mix(coarse: Floats, picture: Floats, realism: float) -> Floats:
    """(1 - realism) · x̃ + realism · x̂, in place of the second."""
    picture *= np.float32(realism)
    for row in range(picture.shape[1]):
        picture[:, row] += np.float32(1 - realism) * coarse[:, row]
    return picture


def _finished(picture: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """[3, h, w] -> [h, w, 3], clipped; uint8 is rounded, NaN is black."""
    if dtype not in (np.dtype(np.float32), np.dtype(np.uint8)):
        raise ValueError(f"a picture is float32 or uint8, not {dtype}")
    out = np.empty((*picture.shape[1:], 3), dtype)
    for row in _rows(picture):
        values = np.fmin(np.fmax(picture[:, row], 0), 1).transpose(1, 2, 0)
        out[row] = values if dtype == np.float32 else (values * 255 + 0.5).astype(np.uint8)
    return out


def _rows(picture: Floats, count: int = 256) -> Iterator[slice]:
    return (slice(top, min(top + count, picture.shape[1])) for top in range(0, picture.shape[1], count))
