"""Rate and distortion of a codec in training, measured on validation photographs at several levels and
scales.

The bits are those of rounded latents with the Gaussian tables, plus the header. x̃ is compared at the size of
the original.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import structural_similarity
from ..stages.base import StageModule

RATES = (0.005, 0.0138, 0.0203, 0.028, 0.05, 0.1)
"""The rates in bits per pixel for which validation interpolates figures."""
HEADER_BITS = 14 * 8
LEVELS_TRIED = (8, 40, 72, 104, 136, 168, 200, 232, 255)
TOGETHER = 3
"""How many levels pass through the networks together, which limits the memory."""
MULTIPLE = 64
"""The sides of what the networks take are multiples of this."""


Distance = Callable[[Tensor, Tensor], Tensor]
"""A distance [N] of images [N,3,H,W] in 0-1."""


@dataclass(frozen=True)
class Judgement:
    """What validation measures.

    Attributes:
        rates: bits per pixel for which figures are interpolated.
        crop: only this side of the middle of each photograph is coded, in pixels; None: all of it.
        by_level: whether the means over all photographs at each level are logged, too.
        perceptual: a distance that is measured beside PSNR and MS-SSIM; None: there is none.
    """

    rates: tuple[float, ...] = field(default_factory=lambda: RATES)
    crop: int | None = None
    by_level: bool = False
    perceptual: Distance | None = None

    def middle(self, photo: np.ndarray) -> np.ndarray:
        """Return the part of a photograph, [H,W,3], that is coded."""
        if self.crop is None:
            return photo
        top, left = ((max(0, side - self.crop)) // 2 for side in photo.shape[:2])
        return photo[top : top + self.crop, left : left + self.crop]


class Point(NamedTuple):
    """The figures of one photograph at one level and scale; ``perceptual`` is NaN if it is not measured."""

    bpp: float
    psnr: float
    ms_ssim: float
    perceptual: float = math.nan

    @property
    def figures(self) -> list[float]:
        """PSNR, MS-SSIM and, if it was measured, the perceptual distance, rounded for the log."""
        found = [round(self.psnr, 3), round(self.ms_ssim, 4)]
        return found if math.isnan(self.perceptual) else [*found, round(self.perceptual, 4)]


def padded(x: Tensor) -> Tensor:
    """Repeat the edges of an image up to multiples of 64 pixels."""
    height, width = x.shape[2:]
    out = F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
    return out.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def curve(
    module: StageModule,
    photo: np.ndarray,
    scale: float,
    levels: Sequence[int],
    device: torch.device,
    perceptual: Distance | None = None,
) -> list[Point]:
    """Return the point of each level for a photograph, uint8 [H,W,3], that is coded smaller by a factor
    `scale`."""
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
    """Return PSNR in dB, MS-SSIM and the perceptual distance of two images, in float32."""
    with torch.autocast(image.device.type, enabled=False):
        error = float((image - original).square().mean())
        similar = float(structural_similarity(image, original))
        distance = math.nan if perceptual is None else float(perceptual(image, original))
    return -10 * math.log10(max(error, 1e-10)), similar, distance


def at_rate(points: Sequence[Point], bpp: float) -> Point | None:
    """Interpolate the point at a rate, linear in the logarithm of the rate; return None outside of the
    levels."""
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
    """Return the mean over photographs of the point at each rate, at the scale with the best PSNR.

    A rate that one of the photographs does not reach is left out.

    Args:
        curves: the points of each level, by photograph and by scale.
    """
    found: dict[float, list[Point]] = {rate: [] for rate in rates}
    for of_photo in curves:
        for rate in rates:
            points = [p for p in (at_rate(c, rate) for c in of_photo) if p is not None]
            if points:
                found[rate].append(max(points, key=lambda p: p.psnr))
    return {rate: Point(*np.mean(points, 0)) for rate, points in found.items() if len(points) == len(curves)}


def by_level(
    curves: Sequence[Sequence[Sequence[Point]]], levels: Sequence[int] = LEVELS_TRIED
) -> dict[int, Point]:
    """Return the mean over photographs of the point at each level, at the first scale."""
    return {
        level: Point(*np.mean([of_photo[0][i] for of_photo in curves], 0)) for i, level in enumerate(levels)
    }
