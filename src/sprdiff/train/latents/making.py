"""How a folder of latents is made: the codec codes crops, and the VAE adds the latent of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from ...common.messages import reason
from ...errors import TrainingError
from ...models.sprdiff import SPRDiff
from ..data.photos import CropSampler, PhotoStore
from ..stages.base import draw_levels
from .store import SIDE, VAE, LatentStore

CHUNK = 4
"""Crops that are computed together."""
Codec = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From images and their levels to x̃, f16 and f32."""


def make_latents(
    codec: Codec, photos: PhotoStore, folder: Path, count: int, seed: int, device: str
) -> Iterator[int]:
    """Code `count` augmented crops, each at its own level, and go on where an earlier run stopped.

    Yields:
        How many crops are done.

    Raises:
        TrainingError: a file cannot be written, or the folder belongs to another run.
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
    """Add the VAE's latent of every crop of a folder.

    Yields:
        How many crops are done.

    Raises:
        TrainingError: the folder is not complete.
    """
    store = LatentStore.open(folder, ("x", "coarse", "level"))
    count, channels = len(store), model.config.vae_latent
    shape = (count, SIDE // 8, SIDE // 8, channels)
    # The files get their names once they are complete: nobody would notice that half of a file is zeros.
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
    """Count the crops that a folder holds already."""
    if not (folder / "level.npy").exists():
        return 0
    level = np.load(folder / "level.npy", mmap_mode="r", allow_pickle=False)
    if len(level) != count:
        raise TrainingError(f"{folder} holds another number of crops, {len(level)} in place of {count}")
    return int((level >= 0).sum())


def _open(folder: Path, count: int, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    fresh = not (folder / "level.npy").exists()
    mode = "w+" if fresh else "r+"
    try:
        arrays: dict[str, np.ndarray] = {
            n: open_memmap(folder / f"{n}.npy", mode, v.dtype, (count, *v.shape[1:]))
            for n, v in values.items()
        }
        if fresh:  # it says which crops are done: it appears when it says that none is
            partial = folder / "level.part.npy"
            np.save(partial, np.full(count, -1, np.int16))
            partial.replace(folder / "level.npy")
        arrays["level"] = open_memmap(folder / "level.npy", "r+", np.int16, (count,))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} cannot be written: {reason(error)}") from error
    return arrays


def _bytes(image: Tensor) -> np.ndarray:
    found: np.ndarray = image.float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return found


def _halves(value: Tensor) -> np.ndarray:
    found: np.ndarray = value.float().permute(0, 2, 3, 1).half().cpu().numpy()
    return found


def _images(pixels: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(pixels.copy()).to(device).permute(0, 3, 1, 2).float().div_(255)
