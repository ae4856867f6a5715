"""FID and KID on patches: how far the decoded images as a set are from the originals as a set.

Codecs are compared on patches since HiFiC (Mentzer et al., NeurIPS 2020, appendix; "FID/256"), because a
dataset of photographs has too few images for these distances. Any features will do for the formulas; FID and
KID are the names of their values on `inception.Inception`.
"""

from __future__ import annotations

import numpy as np

from sprdiff.errors import SprdiffError
from sprdiff.evaluate.metrics.distortion import Bytes, Floats, check_pair
from sprdiff.evaluate.metrics.features import feature_sets, frechet_distance
from sprdiff.evaluate.metrics.tensors import Features, check_rgb

PATCH = 256
MIN_PATCHES = 5000
"""Fewest patches per set for FID: its bias falls with their number, and 2048 dimensions need many."""

_ROWS = 1024


class TooFewPatchesError(SprdiffError):
    """The sets are too small for FID."""


def hific_patches(image: Bytes) -> Bytes:
    """Return the patches uint8 [N, 256, 256, 3] of an image, in the protocol of HiFiC.

    Patches side by side from the upper left corner, then once more from (128, 128); each time as many as fit,
    in raster order. A 768x512 image gives 6 + 2, so Kodak 192, as HiFiC states. Where a remainder of half a
    patch or more is left at an edge, the second grid is as in NeuralCompression's ``update_patch_fid``, which
    publications use: one line longer than the count that the paper's text gives.

    Args:
        image: uint8 RGB [H, W, 3], both sides at least 256 pixels.

    Raises:
        ImageError: another type, or too small.
    """
    check_pair(image, image)
    check_rgb(image, PATCH)
    return np.concatenate([_grid(image), _grid(image[PATCH // 2 :, PATCH // 2 :])])


def fid(a: Features | Floats, b: Features | Floats) -> float:
    """Return the Fréchet Inception distance of two sets (Heusel et al., NeurIPS 2017), 0 and up; smaller is
    better.

    Args:
        a, b: features [N, 2048] and [M, 2048] of originals and decoded images, at least ``MIN_PATCHES`` each.

    Raises:
        TooFewPatchesError: too few rows.
        ImageError: other shapes, or values that are not finite.
    """
    if min(len(a), len(b)) < MIN_PATCHES:
        raise TooFewPatchesError(
            f"FID needs at least {MIN_PATCHES} patches per set, got {len(a)} and {len(b)}: see KID instead"
        )
    return frechet_distance(a, b)


def kid(a: Features | Floats, b: Features | Floats) -> float:
    """Return the Kernel Inception distance (Bińkowski et al., ICLR 2018): unbiased at any number of patches;
    smaller is better.

    Squared maximum mean discrepancy with the kernel ``(x·y / D + 1)^3``, its unbiased estimate over the whole
    sets. Packages such as torch-fidelity and torchmetrics average the same estimate over random subsets of
    1,000; the mean over all subsets is this value, so theirs scatter around it. Near equality it can be
    slightly negative.

    Args:
        a, b: features [N, D] and [M, D], at least two rows each; the counts may differ.

    Raises:
        ImageError: other shapes, or values that are not finite.
    """
    x, y = feature_sets(a, b)
    across = _kernel_sum(x, y) / (len(x) * len(y))
    return _within(x) + _within(y) - 2.0 * across


def _within(x: Floats) -> float:
    """Return the mean of the kernel over all pairs of different rows."""
    diagonal = float((((x * x).sum(1) / x.shape[1] + 1.0) ** 3).sum())
    return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))


def _kernel_sum(x: Floats, y: Floats) -> float:
    """Return the sum of the kernel over all pairs of rows; in strips, so that 30,000 patches need no
    matrix of 7 GB."""
    strips = (x[start : start + _ROWS] @ y.T for start in range(0, len(x), _ROWS))
    return float(sum(((strip / x.shape[1] + 1.0) ** 3).sum() for strip in strips))


def _grid(image: Bytes) -> Bytes:
    """Return the patches side by side from the upper left corner, [N, 256, 256, C]; none where the image
    is too small."""
    rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
    cut = image[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH, image.shape[2])
    return cut.transpose(0, 2, 1, 3, 4).reshape(rows * columns, PATCH, PATCH, image.shape[2])
