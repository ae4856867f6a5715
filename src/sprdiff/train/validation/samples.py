"""Samples of the flow for validation, and contact sheets that show pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...models.sprdiff import SPRDiff
from ...runtime.sampler import solve

SHEET_SIDE = 224
"""The side of the crops of a contact sheet in pixels; they are shown 1:1."""
SHEET_ROWS = 12

Pixels = np.ndarray
"""uint8 [H,W,3]."""


@torch.no_grad()
def draw(
    model: SPRDiff,
    coarse: Tensor,
    f16: Tensor,
    f32: Tensor,
    level: Tensor,
    *,
    steps: int,
    few: bool = False,
    seed: int = 0,
    scale: float = 1.0,
    latest: float = 1.0,
    guide: float = 0.0,
    worse: SPRDiff | None = None,
) -> Tensor:
    """Draw a sample of the decoded picture, [1,3,H,W], not clipped.

    Args:
        coarse: x̃ in 0-1, [1,3,H,W], with its features `f16` and `f32`.
        few: whether the flow was trained for few steps: the network is then told the size of each step.
        scale: the deviation of the noise at the start.
        latest: the latest time for which the network is evaluated.
        guide: the weight of the guidance by a model with a worse flow, `worse` (autoguidance, see
            `FlowStage`).
    """
    height, width = (side // 8 for side in coarse.shape[2:])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, model.config.vae_latent, height, width, generator=generator).to(coarse.device)
    flows = [model] if worse is None else [model, worse]
    z0 = sampled(
        flows, (coarse, f16, f32), level, scale * noise, steps=steps, few=few, latest=latest, guide=guide
    )
    return model.decode_latent(z0, coarse).float()


@torch.no_grad()
def sampled(
    flows: Sequence[SPRDiff],
    received: tuple[Tensor, Tensor, Tensor],
    level: Tensor,
    noise: Tensor,
    *,
    steps: int,
    few: bool = False,
    latest: float = 1.0,
    guide: float = 0.0,
) -> Tensor:
    """Return the standardised latents to which noise leads, both [N,Z,H/8,W/8].

    Args:
        flows: the model, and for guidance one with a worse flow.
        received: x̃ in 0-1, f16 and f32, of N images at the levels [N].
        few, latest, guide: as in `draw`.
    """
    coarse, f16, f32 = received
    given = [part.flow.condition(coarse, *part.reconstruction.conditions(coarse, f32, f16)) for part in flows]
    one = torch.ones(len(noise), device=noise.device)

    def velocity(z: Tensor, time: float, stride: float) -> Tensor:
        z, told = z.contiguous(memory_format=torch.channels_last), (stride if few else 0.0) * one
        found = [
            part.flow(z, time * one, told, level, known).float()
            for part, known in zip(flows, given, strict=True)
        ]
        return found[0] if len(found) == 1 else found[0].lerp(found[1], -guide)

    return solve(velocity, noise, steps, latest=latest)


def to_pixels(image: Tensor, size: tuple[int, int]) -> Pixels:
    """Turn an image [1,3,H,W] in 0-1 into pixels uint8 [height,width,3] of a size; the rest is cut off."""
    cut = image[0, :, : size[0], : size[1]].float().clamp(0, 1)
    found: Pixels = cut.mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    return found


def sheet(path: Path, columns: Sequence[Sequence[Pixels]], side: int = SHEET_SIDE) -> None:
    """Write a contact sheet: one row for each photograph, one column for each list of pictures, cut from
    the middle."""
    rows = []
    for pictures in list(zip(*columns, strict=True))[:SHEET_ROWS]:
        height, width = pictures[0].shape[:2]
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        rows.append(np.concatenate([p[top : top + side, left : left + side] for p in pictures], 1))
    partial = path.with_suffix(".part.png")
    Image.fromarray(np.concatenate(rows, 0)).save(partial)
    partial.replace(path)
