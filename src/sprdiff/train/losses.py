"""Terms of the losses: squared error, MS-SSIM, distances of features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error of each image, [N]."""
    return (a - b).square().mean((1, 2, 3))


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the MS-SSIM of each image, [N] (Wang et al. 2003); on small crops the window is smaller, so
    that five scales fit."""
    from pytorch_msssim import ms_ssim

    window = min(11, ((min(a.shape[2:]) - 1) // 16) // 2 * 2 + 1)
    # In bfloat16 a variance, the difference of a square's mean and a mean's square, would be noise.
    with torch.autocast(a.device.type, enabled=False):
        found: Tensor = ms_ssim(a.float(), b.float(), data_range=1.0, size_average=False, win_size=window)
    return found


def moments(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel in windows of size x size, which overlap by half."""
    step = max(1, size // 2)
    mean = F.avg_pool2d(x, size, step)
    variance = F.avg_pool2d(x.square(), size, step) - mean.square()
    return mean, (variance.clamp(min=0) + 1e-5).sqrt()


def shifted(*images: Tensor, reach: int = 16) -> list[Tensor]:
    """Cut the same part out of all images; its corner is random among the first 16x16 pixels."""
    top, left = (int(v) for v in torch.randint(reach, (2,)))
    height, width = (side - reach for side in images[0].shape[2:])
    return [image[:, :, top : top + height, left : left + width] for image in images]


def unit_features(features: list[Tensor]) -> list[Tensor]:
    """Scale the channel vector at every position of each layer to length one, float32."""
    return [f.float() * (f.float().square().sum(1, keepdim=True) + 1e-4).rsqrt() for f in features]


def feature_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Return the mean squared distance of unit channel vectors, summed over layers (LPIPS with equal
    weights)."""
    pairs = zip(unit_features(a), unit_features(b), strict=True)
    return torch.stack([(p - q).square().sum(1).mean() for p, q in pairs]).sum()


def feature_statistics(a: list[Tensor], b: list[Tensor], side: int = 8) -> Tensor:
    """Return the same distance of means and deviations in windows of `side` positions: texture may move, but
    not fade.

    Like the terms of DISTS (Ding et al. 2020) it does not depend on the exact place of a texture's details.
    """
    total = torch.zeros((), device=a[0].device)
    for p, q in zip(unit_features(a), unit_features(b), strict=True):
        size = min(side, *p.shape[2:])
        (mean_p, deviation_p), (mean_q, deviation_q) = moments(p, size), moments(q, size)
        total = total + ((mean_p - mean_q).square() + (deviation_p - deviation_q).square()).sum(1).mean()
    return total
