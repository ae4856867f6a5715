"""What the receiver knows of many training crops, computed once and kept in memory maps for the later stages.

A folder holds one ``.npy`` for each array, N crops of `SIDE` pixels each:

    x, coarse           uint8   [N, SIDE, SIDE, 3]            the original and x̃
    f16, f32            float16 [N, SIDE/16, SIDE/16, C] ...  features of the synthesis
    level               int16   [N]                           -1: not computed yet
    mean, deviation     float16 [N, SIDE/8, SIDE/8, Z]        the VAE's latent, once there is a VAE

Crops of a batch are a function of (seed, step, rank), as those of photographs are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from ..errors import TrainingError
from ..models.sprdiff import SPRDiff
from .data.photos import CropSampler, PhotoStore
from .stages import draw_levels

log = logging.getLogger(__name__)

SIDE = 448
STRIDES = {"x": 1, "coarse": 1, "f16": 16, "f32": 32, "mean": 8, "deviation": 8}
"""Pixels per position of each array."""
ALIGNED = 32
RECEIVER, VAE = ("x", "coarse", "f16", "f32", "level"), ("mean", "deviation")
CHUNK = 4

Batch = dict[str, Tensor]
Codec = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Image and level -> x̃, f16, f32."""


@dataclass(frozen=True)
class LatentStore:
    """The arrays of one folder."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return int((self.arrays["level"] >= 0).sum())

    @classmethod
    def open(cls, folder: Path, names: tuple[str, ...]) -> LatentStore:
        """Map the arrays of a folder for reading.

        Raises:
            TrainingError: one is missing, damaged, or holds nothing yet.
        """
        try:
            arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in names}
        except (OSError, ValueError) as error:
            raise TrainingError(f"{folder}: not a complete folder of latents ({error})") from error
        if "level" not in arrays or not len(store := cls(arrays)):
            raise TrainingError(f"{folder}: holds no latents yet")
        return store


class LatentSampler:
    """Random parts of the stored crops, the same part of every array."""

    def __init__(self, store: LatentStore, crop: int, seed: int) -> None:
        """``crop``: side in pixels, a multiple of 32 of at most `SIDE`."""
        if crop % ALIGNED or not 0 < crop <= SIDE:
            raise TrainingError(f"parts of latents have sides of multiples of {ALIGNED} up to {SIDE}, not {crop}")
        self.store, self.crop, self.seed = store, crop, seed

    def batch(self, step: int, rank: int, count: int) -> Batch:
        """Images float32 in 0-1, features and latents float32, all [count,C,h,w] channels last; level [count]."""
        picks, corners = self.draw(step, rank, count)
        found: Batch = {}
        for name, array in self.store.arrays.items():
            if name == "level":
                found[name] = torch.from_numpy(array[picks].astype(np.float32))
                continue
            side, s = self.crop // STRIDES[name], STRIDES[name]
            parts = [array[i, a // s : a // s + side, b // s : b // s + side] for i, (a, b) in zip(picks, corners)]  # noqa: B905
            values = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float()
            found[name] = values.div_(255) if array.dtype == np.uint8 else values
        return found

    def draw(self, step: int, rank: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the crops of a batch, [count], and the upper left pixels of their parts, [count,2]."""
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, rank, step, 0]))
        picks = rng.integers(len(self.store), size=count)
        return picks, ALIGNED * rng.integers((SIDE - self.crop) // ALIGNED + 1, size=(count, 2))


def make_latents(codec: Codec, photos: PhotoStore, folder: Path, count: int, seed: int, device: str) -> Iterator[int]:
    """Code `count` augmented crops at levels of their own; yields how many are done. Resumes what is there.

    Raises:
        TrainingError: the disk refused a file, or the folder is another run's.
    """
    sampler = CropSampler(photos, SIDE, seed, device)
    arrays: dict[str, np.ndarray] = {}
    start = _done(folder, count)
    for first in range(start, count, CHUNK):
        size = min(CHUNK, count - first)
        x = sampler.batch(first, 0, size).to(device)
        torch.manual_seed(seed * 1_000_003 + first)
        level = draw_levels(size, device)
        with torch.no_grad():
            coarse, f16, f32 = codec(x, level)
        values = {"x": _bytes(x), "coarse": _bytes(coarse), "f16": _halves(f16), "f32": _halves(f32)}
        if not arrays:
            arrays = _open(folder, count, values)
        for name, value in values.items():
            arrays[name][first : first + size] = value
        arrays["level"][first : first + size] = level.cpu().numpy().astype(np.int16)
        yield first + size


@torch.no_grad()
def encode_latents(model: SPRDiff, folder: Path, device: str) -> Iterator[int]:
    """Add the VAE's latent of every crop of a folder; yields how many are done."""
    store = LatentStore.open(folder, ("x", "coarse", "level"))
    count, channels = len(store), model.config.vae_latent
    shape = (count, SIDE // 8, SIDE // 8, channels)
    # Under their names when they are complete: half of them would be zeros that nobody notices.
    partial = {n: folder / f"{n}.part.npy" for n in VAE}
    arrays = {n: open_memmap(path, "w+", np.float16, shape) for n, path in partial.items()}
    for first in range(0, count, CHUNK):
        x, coarse = (_images(store.arrays[n][first : first + CHUNK], device) for n in ("x", "coarse"))
        mean, log_deviation = model.triple_encoder.vae(x, coarse)
        for name, value in zip(VAE, (mean, log_deviation.float().exp()), strict=True):
            arrays[name][first : first + len(x)] = _halves(value)
        if first + len(x) == count:
            for name, path in partial.items():
                path.replace(folder / f"{name}.npy")
        yield first + len(x)


def _done(folder: Path, count: int) -> int:
    """How many crops a folder holds already."""
    if not (folder / "level.npy").exists():
        return 0
    level = np.load(folder / "level.npy", mmap_mode="r", allow_pickle=False)
    if len(level) != count:
        raise TrainingError(f"{folder}: holds another number of crops, {len(level)} in place of {count}")
    return int((level >= 0).sum())


def _open(folder: Path, count: int, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    fresh = not (folder / "level.npy").exists()
    mode = "w+" if fresh else "r+"
    try:
        arrays: dict[str, np.ndarray] = {
            n: open_memmap(folder / f"{n}.npy", mode, v.dtype, (count, *v.shape[1:])) for n, v in values.items()
        }
        if fresh:  # it says which crops are done, so it appears when it says none
            partial = folder / "level.part.npy"
            np.save(partial, np.full(count, -1, np.int16))
            partial.replace(folder / "level.npy")
        arrays["level"] = open_memmap(folder / "level.npy", "r+", np.int16, (count,))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder}: cannot be written ({error})") from error
    return arrays


def _bytes(image: Tensor) -> np.ndarray:
    found: np.ndarray = image.float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return found


def _halves(value: Tensor) -> np.ndarray:
    found: np.ndarray = value.float().permute(0, 2, 3, 1).half().cpu().numpy()
    return found


def _images(pixels: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(pixels.copy()).to(device).permute(0, 3, 1, 2).float().div_(255)
