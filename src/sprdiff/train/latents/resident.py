"""Latents in the memory of a GPU: batches are gathered there, so that nothing waits for the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .store import STRIDES, Batch, LatentSampler, LatentStore


class ResidentLatents(LatentSampler):
    """Draws the batches of `LatentSampler` from arrays on a device."""

    def __init__(self, store: LatentStore, crop: int, seed: int, device: str) -> None:
        super().__init__(store, crop, seed)
        count = len(store)
        self.device = torch.device(device)
        self.arrays = {
            n: torch.from_numpy(np.array(a[:count])).to(self.device) for n, a in store.arrays.items()
        }

    def batch(self, step: int, rank: int, count: int) -> Batch:
        picks, corners = self.draw(step, rank, count)
        drawn = torch.from_numpy(np.column_stack([picks, corners]))
        if self.device.type == "cuda":
            drawn = drawn.pin_memory().to(self.device, non_blocking=True)
        index, top, left = drawn.unbind(1)
        return {name: self._parts(name, index, top, left) for name in self.arrays}

    def _parts(self, name: str, index: Tensor, top: Tensor, left: Tensor) -> Tensor:
        array = self.arrays[name]
        if name == "level":
            return array[index].float()
        stride = STRIDES[name]
        reach = torch.arange(self.crop // stride, device=self.device)
        rows, columns = (corner[:, None] // stride + reach for corner in (top, left))
        values = (
            array[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).float()
        )
        return values.div_(255) if array.dtype == torch.uint8 else values
