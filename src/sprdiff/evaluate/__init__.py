"""Measuring: image metrics (numpy only) and distances on a pretrained network (torch, on demand)."""

from __future__ import annotations

from sprdiff.evaluate.metrics.distortion import ms_ssim, psnr
from sprdiff.evaluate.metrics.features import FeatureNetwork, frechet_distance

__all__ = ["FeatureNetwork", "frechet_distance", "ms_ssim", "psnr"]
