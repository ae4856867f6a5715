"""Rate and distortion of a codec in training, on whole validation photographs at every rate and scale at once.

Bits are those of rounded latents by the base tables, plus the header; x̃ is compared at the size of the original.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import structural_similarity
from .stages import StageModule

HEADER_BITS = 14 * 8
LEVELS_TRIED = (8, 40, 72, 104, 136, 168, 200, 232, 255)
TOGETHER = 3
"""Levels that one pass through the networks takes: bounds its memory."""
MULTIPLE = 64
"""The networks take sides that are multiples of this."""


class Point(NamedTuple):
    """One photograph at one level and scale."""

    bpp: float
    psnr: float
    ms_ssim: float


def padded(x: Tensor) -> Tensor:
    """Edges repeated to whole multiples of 64 pixels."""
    height, width = x.shape[2:]
    out = F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
    return out.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def curve(
    module: StageModule, photo: np.ndarray, scale: float, levels: Sequence[int], device: torch.device
) -> list[Point]:
    """Rate-distortion points of a photograph, uint8 [H,W,3], coded smaller by `scale`."""
    original = torch.from_numpy(np.array(photo)).to(device).permute(2, 0, 1)[None].float() / 255
    height, width = original.shape[2:]
    small = original
    if scale != 1:
        size = (max(1, round(height / scale)), max(1, round(width / scale)))
        small = F.interpolate(original, size, mode="bicubic", antialias=True).clamp(0, 1)
    x, points = padded(small), []
    for first in range(0, len(levels), TOGETHER):
        some = torch.tensor(levels[first : first + TOGETHER], dtype=torch.float32, device=device)
        shown = module.reconstruct(x, some)
        assert shown is not None
        for image, bits in zip(shown[0], shown[1].float() * x[0, 0].numel(), strict=True):
            image = image[None, :, : small.shape[2], : small.shape[3]].clamp(0, 1)
            if scale != 1:
                image = F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
            image = image.mul(255).round().div(255)
            error = float((image - original).square().mean())
            bpp = (float(bits) + HEADER_BITS) / (height * width)
            similar = float(structural_similarity(image, original))
            points.append(Point(bpp, -10 * math.log10(max(error, 1e-10)), similar))
    return points


def at_rate(points: Sequence[Point], bpp: float) -> Point | None:
    """The point of a rate, linear in the logarithm of the rate between two levels; None outside of them."""
    ordered = sorted(points)
    for low, high in itertools.pairwise(ordered):
        if low.bpp <= bpp <= high.bpp:
            share = math.log(bpp / low.bpp) / max(math.log(high.bpp / low.bpp), 1e-9)
            return Point(bpp, *(a + share * (b - a) for a, b in zip(low[1:], high[1:], strict=True)))
    return None


def best_at(
    module: StageModule, photos: Sequence[np.ndarray], rates: Sequence[float], scales: Sequence[float],
    device: torch.device, levels: Sequence[int] = LEVELS_TRIED,
) -> dict[float, Point]:  # fmt: skip
    """Mean over photographs of the point at each rate, at the scale that gives the best PSNR there."""
    found: dict[float, list[Point]] = {rate: [] for rate in rates}
    for photo in photos:
        curves = [curve(module, photo, scale, levels, device) for scale in scales]
        for rate in rates:
            points = [p for p in (at_rate(c, rate) for c in curves) if p is not None]
            if points:
                found[rate].append(max(points, key=lambda p: p.psnr))
    return {rate: Point(*np.mean(points, 0)) for rate, points in found.items() if len(points) == len(photos)}
