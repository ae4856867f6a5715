"""Validation by samples: pictures of the VAE and of the flow beside their originals, in figures and side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..models.sprdiff import SPRDiff

SHEET_SIDE = 224
"""Side of the 1:1 crops of a contact sheet, in pixels."""
SHEET_ROWS = 12

Pixels = np.ndarray
"""uint8 [H,W,3]."""
Velocity = Callable[[Tensor, float], Tensor]
"""z_t and time -> velocity."""


def euler(velocity: Velocity, noise: Tensor, steps: int, latest: float = 1.0) -> Tensor:
    """From noise at t = 1 to the latent at t = 0 in equal steps; the network is asked at times up to ``latest``."""
    z = noise
    for i in range(steps):
        z = z - velocity(z, min(1 - i / steps, latest)) / steps
    return z


@torch.no_grad()
def draw(
    model: SPRDiff, coarse: Tensor, f16: Tensor, f32: Tensor, level: Tensor, *,
    steps: int, stride: float, seed: int = 0, scale: float = 1.0, latest: float = 1.0,
) -> Tensor:  # fmt: skip
    """A sample of the decoded picture: x̃ in 0-1 [1,3,H,W] and its features -> [1,3,H,W], not clipped."""
    given = model.flow.condition(coarse, *model.reconstruction.conditions(coarse, f32, f16))
    height, width = (side // 8 for side in coarse.shape[2:])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, model.config.vae_latent, height, width, generator=generator).to(coarse.device)
    index = torch.full((1,), stride, device=coarse.device)

    def velocity(z: Tensor, time: float) -> Tensor:
        z = z.contiguous(memory_format=torch.channels_last)
        return model.flow(z, torch.full_like(index, time), index, level, given).float()

    return model.decode_latent(euler(velocity, scale * noise, steps, latest), coarse).float()


def to_pixels(image: Tensor, size: tuple[int, int]) -> Pixels:
    """[1,3,H,W] -> uint8 [height,width,3], cut to a size."""
    cut = image[0, :, : size[0], : size[1]].float().clamp(0, 1)
    found: Pixels = cut.mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    return found


def sheet(path: Path, columns: Sequence[Sequence[Pixels]], side: int = SHEET_SIDE) -> None:
    """Write rows of 1:1 crops from the middle of each photograph, one column for each list of pictures."""
    rows = []
    for pictures in list(zip(*columns, strict=True))[:SHEET_ROWS]:
        height, width = pictures[0].shape[:2]
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        rows.append(np.concatenate([p[top : top + side, left : left + side] for p in pictures], 1))
    partial = path.with_suffix(".part.png")
    Image.fromarray(np.concatenate(rows, 0)).save(partial)
    partial.replace(path)
