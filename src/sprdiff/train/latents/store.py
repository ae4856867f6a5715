"""A folder of latents, and the batches that stages draw from it.

The folder holds one ``.npy`` file for each array, with N crops of `SIDE` x `SIDE` pixels:

    x, coarse           uint8   [N, SIDE, SIDE, 3]            the original and x̃
    f16, f32            float16 [N, SIDE/16, SIDE/16, C] ...  features of the synthesis
    level               int16   [N]                           -1 if the crop has not been computed yet
    mean, deviation     float16 [N, SIDE/8, SIDE/8, Z]        the VAE's latent, once there is a VAE

The crops of a batch depend on seed, step and rank only, as they do in `data.photos`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import TrainingError

SIDE = 448
STRIDES = {"x": 1, "coarse": 1, "f16": 16, "f32": 32, "mean": 8, "deviation": 8}
"""How many pixels one position of each array stands for."""
ALIGNED = 32
VAE = ("mean", "deviation")
"""The arrays that the VAE adds."""

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class LatentStore:
    """The arrays of a folder of latents."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return int((self.arrays["level"] >= 0).sum())

    @classmethod
    def open(cls, folder: Path, names: tuple[str, ...]) -> LatentStore:
        """Map the arrays of a folder into memory, for reading.

        Raises:
            TrainingError: an array is missing or damaged, or nothing has been computed yet.
        """
        try:
            arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in names}
        except (OSError, ValueError) as error:
            raise TrainingError(f"{folder} is not a complete folder of latents ({error})") from error
        if "level" not in arrays or not len(store := cls(arrays)):
            raise TrainingError(f"{folder} holds no latents yet")
        return store


class LatentSampler:
    """Draws random parts of the stored crops, the same part of every array."""

    def __init__(self, store: LatentStore, crop: int, seed: int) -> None:
        """Take the side of the parts in pixels: a multiple of 32, at most `SIDE`."""
        if crop % ALIGNED or not 0 < crop <= SIDE:
            raise TrainingError(
                f"the parts of latents have sides of multiples of {ALIGNED} up to {SIDE}, not {crop}"
            )
        self.store, self.crop, self.seed = store, crop, seed

    def batch(self, step: int, rank: int, count: int) -> Batch:
        """Return the batch of a step: images in 0-1, features and latents, float32 [count,C,h,w]; levels
        [count]."""
        picks, corners = self.draw(step, rank, count)
        found: Batch = {}
        for name, array in self.store.arrays.items():
            if name == "level":
                found[name] = torch.from_numpy(array[picks].astype(np.float32))
                continue
            side, s = self.crop // STRIDES[name], STRIDES[name]
            parts = [
                array[i, a // s : a // s + side, b // s : b // s + side]
                for i, (a, b) in zip(picks, corners, strict=True)
            ]
            values = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float()
            found[name] = values.div_(255) if array.dtype == np.uint8 else values
        return found

    def draw(self, step: int, rank: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the crops of a batch, [count] indices, and the upper left pixels of the parts, [count,2]."""
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, rank, step, 0]))
        picks = rng.integers(len(self.store), size=count)
        return picks, ALIGNED * rng.integers((SIDE - self.crop) // ALIGNED + 1, size=(count, 2))
