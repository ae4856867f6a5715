"""Terms of the losses: squared error, MS-SSIM, distances of features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error of each image, [N]."""
    return (a - b).square().mean((1, 2, 3))


SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents of MS-SSIM's scales, the finest first (Wang et al. 2003)."""
DEVIATION = 1.5
"""Standard deviation of its Gaussian window, in pixels."""
C1, C2 = 0.01**2, 0.03**2


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the MS-SSIM of each image, [N], the mean over its channels (Wang et al. 2003).

    It has the choices of the package pytorch-msssim. All planes are channels of one image, because depthwise
    convolutions of three channels are slow on a CPU. On small crops the window is smaller, so that five
    scales fit.

    Args:
        a: [N,C,H,W] in 0-1, the images that may have a gradient.
        b: the same of the originals, which get none.
    """
    size = min(11, ((min(a.shape[2:]) - 1) // 16) // 2 * 2 + 1)
    # In bfloat16 a variance, the difference of a square's mean and a mean's square, would be noise.
    with torch.autocast(a.device.type, enabled=False):
        p, q = _planes(a), _planes(b.detach())
        product = torch.ones((), device=a.device)
        for scale, exponent in enumerate(SCALES):
            if scale:
                odd = [side % 2 for side in p.shape[2:]]
                p, q = F.avg_pool2d(p, 2, padding=odd), F.avg_pool2d(q, 2, padding=odd)
            contrast, luminance = _similarities(p, q, size)
            term = contrast * luminance if scale == len(SCALES) - 1 else contrast
            # Without the small number a negative mean would have an infinite gradient.
            product = product * term.mean((0, 2, 3)).clamp(min=1e-12) ** exponent
    return product.view(a.shape[:2]).mean(1)


def one_channel(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Take the same random channel of both images of each pair, [N,C,H,W] -> [N,1,H,W] each.

    The expected MS-SSIM is that of all channels, for a third of the time.
    """
    rows = torch.arange(len(a), device=a.device)
    channel = torch.randint(a.shape[1], (len(a),), device=a.device)
    return a[rows, channel][:, None], b[rows, channel][:, None]


def _planes(x: Tensor) -> Tensor:
    """Make every plane a channel of one image, channels last: [N,C,H,W] -> [1,N·C,H,W], float32."""
    planes = x.float().reshape(1, -1, *x.shape[2:])
    return planes.contiguous(memory_format=torch.channels_last)


def _similarities(p: Tensor, q: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the terms of contrast and luminance at each position of a window of size x size."""
    with torch.no_grad():
        mean_q = _gaussian(q, size)
        energy_q, variance_q = mean_q.square(), _gaussian(q.square(), size) - mean_q.square()
    mean_p = _gaussian(p, size)
    energy_p, both = mean_p.square(), mean_p * mean_q
    variance_p, covariance = _gaussian(p.square(), size) - energy_p, _gaussian(p * q, size) - both
    contrast = (2 * covariance + C2) / (variance_p + variance_q + C2)
    return contrast, (2 * both + C1) / (energy_p + energy_q + C1)


def _gaussian(x: Tensor, size: int) -> Tensor:
    """Average with a Gaussian window, without padding."""
    place = torch.arange(size, device=x.device) - size // 2
    window = torch.exp(-place.square() / (2 * DEVIATION**2))
    window = (window / window.sum()).expand(x.shape[1], 1, 1, size)
    down = F.conv2d(x, window.mT, groups=x.shape[1])
    return F.conv2d(down, window, groups=x.shape[1])


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
