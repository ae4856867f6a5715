"""Figures over pairs of pictures, for validation in training and for benchmarks.

The functions are those of `metrics`, with whichever feature network is available.
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
    """A network that judges by features, such as `FeatureNetwork` (SqueezeNet)."""

    def feature_distance(self, a: Bytes, b: Bytes) -> float:
        """Return the distance of two images, uint8 RGB [H, W, 3]; smaller is better."""
        ...

    def patch_features(self, image: Bytes) -> Features:
        """Return the features of the crops of an image, [N, D]."""
        ...


class Pairs:
    """Collects pairs of an original and a decoded picture.

    Args:
        network: a network, or the file with the weights of SqueezeNet 1.1 (``--features FILE``), which is
            loaded now; None: only PSNR and MS-SSIM are measured. Distances of different networks are not
            comparable.

    Raises:
        WeightsError: the file cannot be read or is not such a network.
        SprdiffError: torch, or h5py for its format, is not installed.
    """

    def __init__(self, network: Network | Path | None = None) -> None:
        self._network = FeatureNetwork.load(network) if isinstance(network, Path) else network
        self._figures: dict[str, list[float]] = {}
        self._patches: tuple[list[Features], list[Features]] = [], []

    def add(self, original: Bytes, decoded: Bytes) -> None:
        """Measure a pair, uint8 RGB [H, W, 3].

        Raises:
            ImageError: the types or shapes differ, or the pictures are too small for a metric.
        """
        found = {"psnr": psnr(original, decoded), "ms_ssim": ms_ssim(original, decoded)}
        if self._network is not None:
            found["feature_distance"] = self._network.feature_distance(original, decoded)
            for patches, image in zip(self._patches, (original, decoded), strict=True):
                patches.append(self._network.patch_features(image))
        for name, value in found.items():
            self._figures.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """Return the means over the pairs: ``psnr`` (dB), ``ms_ssim``, and with a network
        ``feature_distance`` and, if there are enough crops, ``frechet``, one figure for the whole set. The
        result is empty before the first pair.
        """
        means = {name: fmean(values) for name, values in self._figures.items()}
        if sum(map(len, self._patches[0])) >= MIN_CROPS:
            originals, decoded = (np.concatenate(patches) for patches in self._patches)
            means["frechet"] = frechet_distance(originals, decoded)
        return means
