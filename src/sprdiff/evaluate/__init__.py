"""Measuring: image metrics (numpy only), distances on pretrained networks (torch, loaded on demand),
comparisons."""

from __future__ import annotations

from sprdiff.evaluate.metrics.distortion import ms_ssim, psnr
from sprdiff.evaluate.metrics.features import FeatureNetwork, frechet_distance

__all__ = ["FeatureNetwork", "frechet_distance", "ms_ssim", "psnr"]
