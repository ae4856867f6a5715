"""Figures over pairs of pictures while they are made, for validation in training: one row, no files.

The same functions as in `metrics`, on whichever feature network is at hand.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Protocol

import numpy as np

from sprdiff.evaluate.metrics.distortion import Bytes, ms_ssim, psnr
from sprdiff.evaluate.metrics.features import MIN_CROPS, FeatureNetwork, frechet_distance
from sprdiff.evaluate.metrics.tensors import Features


class Network(Protocol):
    """What judges by features; `FeatureNetwork` (SqueezeNet) is one."""

    def feature_distance(self, a: Bytes, b: Bytes) -> float:
        """Distance of two images, uint8 RGB [H, W, 3]; smaller is better."""
        ...

    def patch_features(self, image: Bytes) -> Features:
        """Features [N, D] of the crops of an image."""
        ...


class Pairs:
    """Collects pairs of an original and a decoded picture.

    Args:
        network: an object, or the file of SqueezeNet 1.1 (``--features FILE``), which is loaded now; None: PSNR and
            MS-SSIM alone. Distances on different networks do not compare.

    Raises:
        WeightsError: the file cannot be read or is no such network.
        SprdiffError: torch, or h5py for its format, is not installed.
    """

    def __init__(self, network: Network | Path | None = None) -> None:
        self._network = FeatureNetwork.load(network) if isinstance(network, Path) else network
        self._figures: dict[str, list[float]] = {}
        self._patches: tuple[list[Features], list[Features]] = [], []

    def add(self, original: Bytes, decoded: Bytes) -> None:
        """Measure a pair, uint8 RGB [H, W, 3].

        Raises:
            ImageError: other types, different shapes, or too small for a metric.
        """
        found = {"psnr": psnr(original, decoded), "ms_ssim": ms_ssim(original, decoded)}
        if self._network is not None:
            found["feature_distance"] = self._network.feature_distance(original, decoded)
            for patches, image in zip(self._patches, (original, decoded), strict=True):
                patches.append(self._network.patch_features(image))
        for name, value in found.items():
            self._figures.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """Means over the pairs: ``psnr`` (dB), ``ms_ssim``, with a network ``feature_distance``, and ``frechet``, one
        figure for the whole set, where there are enough crops. Empty before the first pair.
        """
        means = {name: fmean(values) for name, values in self._figures.items()}
        if sum(map(len, self._patches[0])) >= MIN_CROPS:
            originals, decoded = (np.concatenate(patches) for patches in self._patches)
            means["frechet"] = frechet_distance(originals, decoded)
        return means
