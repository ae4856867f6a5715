"""Measuring: image metrics (numpy only) and distances on a pretrained network (torch, on demand)."""

from __future__ import annotations

from sprdiff.evaluate.features import FeatureNetwork, frechet_distance
from sprdiff.evaluate.metrics import ms_ssim, psnr

__all__ = ["FeatureNetwork", "frechet_distance", "ms_ssim", "psnr"]
