"""What the stages minimise: rate, distortion, features of a classifier, adversarial terms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each image, [N]."""
    return (a - b).square().mean((1, 2, 3))


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    """Smooth L1 of each image, [N]: sqrt(d² + 1e-6) (Charbonnier et al. 1994)."""
    return ((a - b).square() + 1e-6).sqrt().mean((1, 2, 3))


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM of each image, [N] (Wang et al. 2003); on small crops with a smaller window, so that five scales fit."""
    from pytorch_msssim import ms_ssim

    window = min(11, ((min(a.shape[2:]) - 1) // 16) // 2 * 2 + 1)
    # Its windows are convolutions: in bfloat16 the difference of a square's mean and a mean's square is noise.
    with torch.autocast(a.device.type, enabled=False):
        found: Tensor = ms_ssim(a.float(), b.float(), data_range=1.0, size_average=False, win_size=window)
    return found


def grid_energy(error: Tensor, period: int = 16) -> Tensor:
    """How much of the error repeats with the period of the decoder's coarsest grid: [N,C,H,W] -> [N].

    The mean square of the error's average over all 16x16 cells of the crop, phase by phase and without its mean:
    texture cancels, a grid of period 2, 4, 8 or 16 stays.
    """
    cells = F.pixel_unshuffle(error, period).mean((2, 3)).unflatten(1, (error.shape[1], period**2))
    return (cells - cells.mean(2, keepdim=True)).square().mean((1, 2))


def moments(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel in windows of size x size that overlap by half."""
    step = max(1, size // 2)
    mean = F.avg_pool2d(x, size, step)
    variance = F.avg_pool2d(x.square(), size, step) - mean.square()
    return mean, (variance.clamp(min=0) + 1e-5).sqrt()


def shifted(*images: Tensor, reach: int = 16) -> list[Tensor]:
    """The same cut of all images, its corner drawn from the first 16x16 pixels, its size that of what is left."""
    top, left = (int(v) for v in torch.randint(reach, (2,)))
    height, width = (side - reach for side in images[0].shape[2:])
    return [image[:, :, top : top + height, left : left + width] for image in images]


def viewed(*images: Tensor) -> list[Tensor]:
    """The images turned, mirrored, scaled and recoloured at random, all alike.

    One network's features have blind spots that a decoder finds within a few hundred steps; under random views there
    is no single network to please (E-LPIPS, Kettunen et al. 2019), and what is learned holds for other networks too.
    """
    turns, mirror = int(torch.randint(4, ())), bool(torch.rand(()) < 0.5)
    scale = float(2 ** (1.3 * torch.rand(()) - 1))  # 0.5 to 1.23
    device = images[0].device
    gain, shift = (1 + 0.2 * torch.randn(1, 3, 1, 1)).to(device), (0.1 * torch.randn(1, 3, 1, 1)).to(device)
    height, width = (max(64, 16 * round(side * scale / 16)) for side in images[0].shape[2:])
    found = []
    for image in images:
        image = F.interpolate(image, (height, width), mode="bilinear", antialias=True, align_corners=False)
        image = torch.rot90(image.flip(3) if mirror else image, turns, (2, 3))
        found.append((image - 0.5) * gain + 0.5 + shift)
    return found


def unit_features(features: list[Tensor]) -> list[Tensor]:
    """Channel vectors of each layer at every position, scaled to length one, float32."""
    return [f.float() * (f.float().square().sum(1, keepdim=True) + 1e-4).rsqrt() for f in features]


def feature_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean squared distance of unit channel vectors, summed over layers (as LPIPS with equal weights)."""
    pairs = zip(unit_features(a), unit_features(b), strict=True)
    return torch.stack([(p - q).square().sum(1).mean() for p, q in pairs]).sum()


def feature_statistics(a: list[Tensor], b: list[Tensor], side: int = 8) -> Tensor:
    """The same of means and deviations in windows of ``side`` positions: texture may move, but not fade.

    Blind to where a texture has its threads, as the terms of DISTS are (Ding et al. 2020).
    """
    total = torch.zeros((), device=a[0].device)
    for p, q in zip(unit_features(a), unit_features(b), strict=True):
        size = min(side, *p.shape[2:])
        (mean_p, deviation_p), (mean_q, deviation_q) = moments(p, size), moments(q, size)
        total = total + ((mean_p - mean_q).square() + (deviation_p - deviation_q).square()).sum(1).mean()
    return total
