"""Batches of a stage: where they come from, and how they get to the device and into parts."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from .data.photos import CropSampler, PhotoStore
from .data.shards import ShardCrops
from .latents import Batch, LatentSampler, LatentStore
from .recipes import Stage
from .resident import ResidentLatents

Store = PhotoStore | ShardCrops | LatentStore
"""Where the samples of a stage come from."""


def make_sampler(
    store: Store, stage: Stage, seed: int, accelerator: Accelerator
) -> CropSampler | ShardCrops | LatentSampler:
    """What draws the batches of a stage from a store."""
    device = str(accelerator.device)
    if isinstance(store, PhotoStore):
        return CropSampler(store, stage.crop, seed, device)
    if isinstance(store, LatentStore):
        on_cpu = accelerator.device.type == "cpu"
        return LatentSampler(store, stage.crop, seed) if on_cpu else ResidentLatents(store, stage.crop, seed, device)
    return store


def moved(batch: Tensor | Batch, device: torch.device) -> Tensor | Batch:
    """The batch on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def in_parts(batch: Tensor | Batch, count: int) -> list[Tensor] | list[Batch]:
    """The batch in so many equal parts."""
    if isinstance(batch, Tensor):
        return list(batch.chunk(count))
    parts = {name: value.chunk(count) for name, value in batch.items()}
    return [{name: chunks[i] for name, chunks in parts.items()} for i in range(count)]
