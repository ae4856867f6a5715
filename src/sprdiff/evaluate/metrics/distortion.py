"""PSNR and MS-SSIM in numpy: no torch, no scipy, float64 throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import ImageError

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

PEAK = 255.0
MIN_SIDE = 161
"""Smallest side that MS-SSIM takes, in pixels: (11 - 1) * 2**4 + 1 for five scales of an 11-pixel window."""

_WINDOW = 11
_SIGMA = 1.5
_STRIP = 16
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1 = (0.01 * PEAK) ** 2
_C2 = (0.03 * PEAK) ** 2
_ROUNDING = 1e-9
"""A factor that is larger than what rounding can lift a term above 1."""


def check_pair(a: NDArray[Any], b: NDArray[Any]) -> None:
    """Raise ImageError unless both are uint8 [H, W, C] and of one shape."""
    for image in (a, b):
        if image.dtype != np.uint8 or image.ndim != 3 or image.size == 0:
            raise ImageError(f"expected uint8 [H, W, C], got {image.dtype} {list(image.shape)}")
    if a.shape != b.shape:
        raise ImageError(f"images of different shapes: {list(a.shape)} and {list(b.shape)}")


def psnr(a: Bytes, b: Bytes) -> float:
    """Return the peak signal-to-noise ratio of two images in dB, over all pixels and channels at once.

    Args:
        a, b: uint8 [H, W, C], 0-255.

    Returns:
        ``10 log10(255^2 / MSE)``; infinity for identical images.

    Raises:
        ImageError: other types, or different shapes.
    """
    check_pair(a, b)
    # uint8 would wrap around; the sum of squares in int64 is exact at any size.
    difference = np.subtract(a, b, dtype=np.int16).astype(np.int32)
    squares = int(np.sum(difference * difference, dtype=np.int64))
    if squares == 0:
        return math.inf
    return 10.0 * math.log10(PEAK * PEAK * a.size / squares)


def ms_ssim(a: Bytes, b: Bytes) -> float:
    """Return Multi-scale structural similarity, 0-1 (1 for identical images), mean over the channels.

    Wang, Simoncelli, Bovik: "Multi-scale structural similarity for image quality assessment", Asilomar
    2003, with the choices of the package pytorch-msssim, so that figures compare with those in the
    literature: windows inside the image only, 2x2 average pooling, an odd side padded with one line of
    zeros at its start, negative terms set to zero, the luminance term at the coarsest scale only.

    Args:
        a, b: uint8 [H, W, C], 0-255, both sides at least ``MIN_SIDE`` pixels.

    Raises:
        ImageError: other types, different shapes, or an image too small for five scales.
    """
    score = ms_ssim_from(a, b, -math.inf)
    assert score is not None
    return score


def ms_ssim_from(a: Bytes, b: Bytes, least: float) -> float | None:
    """Return `ms_ssim`, the same to the last bit, if it is at least `least`; otherwise return None, mostly in
    a third of the time.

    The coarse scales are computed first. They cost little and decide most: no term is above 1, so their
    product is a bound of the whole.
    """
    check_pair(a, b)
    if min(a.shape[:2]) < MIN_SIDE:
        size = f"{a.shape[1]}x{a.shape[0]}"
        raise ImageError(f"MS-SSIM needs at least {MIN_SIDE} pixels on each side, got {size}")
    scales = [(a.astype(np.float64), b.astype(np.float64))]
    for _ in _WEIGHTS[1:]:
        x, y = scales[-1]
        scales.append((_halve(x), _halve(y)))
    factors = [np.ones(a.shape[2]) for _ in _WEIGHTS]
    for scale in reversed(range(len(_WEIGHTS))):
        luminance, structure = _similarity(*scales.pop())
        last = scale == len(_WEIGHTS) - 1
        term = np.mean(luminance * structure if last else structure, axis=(0, 1))
        factors[scale] = np.maximum(term, 0.0) ** _WEIGHTS[scale]
        score = float(np.mean(math.prod(factors[1:], start=factors[0])))
        if score < least - _ROUNDING:
            return None
    return score if score >= least else None


def _similarity(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the maps [H-10, W-10, C] of the luminance term and of the contrast-and-structure term of
    SSIM."""
    mean_x, mean_y = _blur(x), _blur(y)
    xx, yy, xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    variances = _blur(x * x) - xx + (_blur(y * y) - yy)
    covariance = _blur(x * y) - xy
    luminance = (2.0 * xy + _C1) / (xx + yy + _C1)
    structure = (2.0 * covariance + _C2) / (variances + _C2)
    return luminance, structure


def _gaussian() -> Floats:
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2.0 * _SIGMA**2))
    return np.asarray(kernel / kernel.sum())


def _blur(x: Floats) -> Floats:
    """Return the separable Gaussian over the first two axes, windows inside the image only: [H-10, W-10,
    C]."""
    height, width = x.shape[0] - _WINDOW + 1, x.shape[1] - _WINDOW + 1
    result = np.empty((height, width, x.shape[2]))
    kernel = _gaussian()
    # Strips of rows that stay in the processor's cache through all passes take less than half the time.
    for top in range(0, height, _STRIP):
        rows = min(_STRIP, height - top)
        strip = _weighted([x[top + i : top + i + rows] for i in range(_WINDOW)], kernel)
        result[top : top + rows] = _weighted([strip[:, i : i + width] for i in range(_WINDOW)], kernel)
    return result


def _weighted(parts: Sequence[Floats], weights: Floats) -> Floats:
    total = parts[0] * weights[0]
    term = np.empty_like(total)
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        np.multiply(part, weight, out=term)
        total += term
    return total


def _halve(x: Floats) -> Floats:
    """Return the 2x2 means; an odd side gets a line of zeros in front, as pytorch-msssim's pooling does."""
    height, width = x.shape[:2]
    x = np.pad(x, ((height % 2, 0), (width % 2, 0), (0, 0)))
    return np.asarray((x[0::2, 0::2] + x[1::2, 0::2] + x[0::2, 1::2] + x[1::2, 1::2]) * 0.25)
