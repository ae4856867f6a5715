"""Rate and distortion of a codec in training, on whole validation photographs at every rate and scale at
once.

Bits are those of rounded latents by the base tables, plus the header; x̃ is compared at the size of the
original.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import structural_similarity
from .stages import StageModule

RATES = (0.005, 0.0138, 0.0203, 0.028, 0.05, 0.1)
"""Bits per pixel at which validation interpolates its figures."""
HEADER_BITS = 14 * 8
LEVELS_TRIED = (8, 40, 72, 104, 136, 168, 200, 232, 255)
TOGETHER = 3
"""Levels that one pass through the networks takes: bounds its memory."""
MULTIPLE = 64
"""The networks take sides that are multiples of this."""


Distance = Callable[[Tensor, Tensor], Tensor]
"""Of images [N,3,H,W] in 0-1, [N]."""


@dataclass(frozen=True)
class Judgement:
    """What validation looks at.

    Attributes:
        rates: bits per pixel at which figures are interpolated; None: `RATES`.
        crop: side in pixels of the middle of each photograph, which is all that is coded; None: all of it.
        by_level: whether the means over all photographs at each level are told, too.
        perceptual: a distance that is told beside PSNR and MS-SSIM; None: there is none.
    """

    rates: tuple[float, ...] | None = None
    crop: int | None = None
    by_level: bool = False
    perceptual: Distance | None = None

    def middle(self, photo: np.ndarray) -> np.ndarray:
        """The part of a photograph, [H,W,3], that is looked at."""
        if self.crop is None:
            return photo
        top, left = ((max(0, side - self.crop)) // 2 for side in photo.shape[:2])
        return photo[top : top + self.crop, left : left + self.crop]


class Point(NamedTuple):
    """One photograph at one level and scale; ``perceptual`` is no number where nothing measures it."""

    bpp: float
    psnr: float
    ms_ssim: float
    perceptual: float = math.nan

    @property
    def figures(self) -> list[float]:
        """PSNR, MS-SSIM and, where it was measured, the perceptual distance, for the log."""
        found = [round(self.psnr, 3), round(self.ms_ssim, 4)]
        return found if math.isnan(self.perceptual) else [*found, round(self.perceptual, 4)]


def padded(x: Tensor) -> Tensor:
    """Edges repeated to whole multiples of 64 pixels."""
    height, width = x.shape[2:]
    out = F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
    return out.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def curve(
    module: StageModule, photo: np.ndarray, scale: float, levels: Sequence[int], device: torch.device,
    perceptual: Distance | None = None,
) -> list[Point]:  # fmt: skip
    """Rate-distortion points of a photograph, uint8 [H,W,3], coded smaller by `scale`, one for each level."""
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
            bpp = (float(bits) + HEADER_BITS) / (height * width)
            points.append(Point(bpp, *_compared(image.mul(255).round().div(255), original, perceptual)))
    return points


def _compared(image: Tensor, original: Tensor, perceptual: Distance | None) -> tuple[float, float, float]:
    """PSNR in dB, MS-SSIM and the perceptual distance of two images, measured where they lie, in float32."""
    with torch.autocast(image.device.type, enabled=False):
        error = float((image - original).square().mean())
        similar = float(structural_similarity(image, original))
        distance = math.nan if perceptual is None else float(perceptual(image, original))
    return -10 * math.log10(max(error, 1e-10)), similar, distance


def at_rate(points: Sequence[Point], bpp: float) -> Point | None:
    """The point of a rate, linear in the logarithm of the rate between two levels; None outside of them."""
    ordered = sorted(points)
    for low, high in itertools.pairwise(ordered):
        if low.bpp <= bpp <= high.bpp:
            share = math.log(bpp / low.bpp) / max(math.log(high.bpp / low.bpp), 1e-9)
            return Point(bpp, *(_between(a, b, share) for a, b in zip(low[1:], high[1:], strict=True)))
    return None


def _between(a: float, b: float, share: float) -> float:
    # What was not measured stays the one value that says so.
    return a if a is b else a + share * (b - a)


def best_of(curves: Sequence[Sequence[Sequence[Point]]], rates: Sequence[float]) -> dict[float, Point]:
    """Mean over photographs of the point at each rate, at the scale that gives the best PSNR there.

    Args:
        curves: by photograph, by scale. A rate that some photograph does not reach is left out.
    """
    found: dict[float, list[Point]] = {rate: [] for rate in rates}
    for of_photo in curves:
        for rate in rates:
            points = [p for p in (at_rate(c, rate) for c in of_photo) if p is not None]
            if points:
                found[rate].append(max(points, key=lambda p: p.psnr))
    return {rate: Point(*np.mean(points, 0)) for rate, points in found.items() if len(points) == len(curves)}


def best_at(
    module: StageModule,
    photos: Sequence[np.ndarray],
    rates: Sequence[float],
    scales: Sequence[float],
    device: torch.device,
    levels: Sequence[int] = LEVELS_TRIED,
) -> dict[float, Point]:
    """The same of photographs that are coded now."""
    return best_of([[curve(module, p, scale, levels, device) for scale in scales] for p in photos], rates)


def by_level(curves: Sequence[Sequence[Sequence[Point]]], levels: Sequence[int] = LEVELS_TRIED) -> dict[int, Point]:
    """Mean over photographs of the point at each level, at the first scale."""
    return {level: Point(*np.mean([of_photo[0][i] for of_photo in curves], 0)) for i, level in enumerate(levels)}
