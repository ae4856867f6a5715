"""What the stages minimise: rate, distortion, features of a classifier, adversarial terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TrainingError


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
    found: Tensor = ms_ssim(a, b, data_range=1.0, size_average=False, win_size=window)
    return found


class TinyDarknet(nn.Module):
    """Tiny Darknet's trunk (16 convolutions, batch norms folded in), frozen: the feature loss and the teacher.

    Args:
        path: ``.npz`` with ``conv1.weight`` (OIHW), ``conv1.bias`` … ``conv16.*``; input RGB in 0-1, leaky ReLU 0.1,
            2x2 max pooling after 1, 2, 6 and 10.

    Raises:
        TrainingError: the file is missing or lacks a layer.
    """

    POOL_AFTER = (1, 2, 6, 10)

    def __init__(self, path: Path, last: int = 15) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.widths: list[int] = []  # channels of each
        try:
            with np.load(path, allow_pickle=False) as data:
                for i in range(1, last + 1):
                    self.layers.append(_convolution(data[f"conv{i}.weight"], data[f"conv{i}.bias"]))
                    self.widths.append(len(data[f"conv{i}.weight"]))
        except (OSError, KeyError, ValueError) as error:
            raise TrainingError(f"{path}: not the weights of Tiny Darknet ({error})") from error
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, taps: tuple[int, ...]) -> list[Tensor]:
        """[N,3,H,W] in 0-1 -> activations after the given convolutions (before pooling)."""
        found = []
        for i, layer in enumerate(self.layers, 1):
            x = F.leaky_relu(layer(x), 0.1)
            if i in taps:
                found.append(x)
            if i == max(taps):
                break
            if i in self.POOL_AFTER:
                x = F.max_pool2d(x, 2)
        return found


def _convolution(weight: np.ndarray, bias: np.ndarray) -> nn.Conv2d:
    out, cin, kernel, _ = weight.shape
    layer = nn.Conv2d(cin, out, kernel, padding=kernel // 2)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def grid_energy(error: Tensor, period: int = 16) -> Tensor:
    """How much of the error repeats with the period of the decoder's coarsest grid: [N,C,H,W] -> [N].

    The mean square of the error's average over all 16x16 cells of the crop, phase by phase and without its mean:
    texture cancels, a grid of period 2, 4, 8 or 16 stays.
    """
    cells = F.pixel_unshuffle(error, period).mean((2, 3)).unflatten(1, (error.shape[1], period**2))
    return (cells - cells.mean(2, keepdim=True)).square().mean((1, 2))


def unit(x: Tensor) -> Tensor:
    """Scale the channel vector at each position to about length one, as LPIPS does.

    Where there is next to nothing (flat areas) it stays small: there the plain scaling gives noise a gradient a
    hundred times that of the squared error.
    """
    energy = x.square().sum(1, keepdim=True)
    return x * torch.rsqrt(energy + 0.01 * energy.mean((2, 3), keepdim=True) + 1e-8)


def moments(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel in windows of size x size that overlap by half."""
    step = max(1, size // 2)
    mean = F.avg_pool2d(x, size, step)
    variance = F.avg_pool2d(x.square(), size, step) - mean.square()
    return mean, (variance.clamp(min=0) + 1e-4).sqrt()


class FeatureLoss(nn.Module):
    """Distance of unit-normalised Tiny Darknet features, summed over taps and averaged over space: [N]."""

    TAPS = (2, 4, 6, 8, 10, 12, 13, 14, 15)
    STRIDES = (2, 4, 4, 8, 8, 16, 16, 16, 16)
    """Pixels per position at each; features that are given beside them have the last one's."""
    WINDOW = 48

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = TinyDarknet(path, last=max(self.TAPS))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        with torch.no_grad():
            reference = self.activations(b)
        return self.distance(self.activations(a), reference)

    def activations(self, x: Tensor) -> list[Tensor]:
        """[N,3,H,W] in 0-1 -> activations at every tap."""
        return self.network(x, self.TAPS)

    def statistics(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """How far means and deviations of the features differ in windows of `WINDOW` pixels, [N].

        Blind to where a texture has its threads, as the structure and texture terms of DISTS are (Ding et al. 2020):
        nobody can know that from so few bytes, but what kind of texture it is can be right.
        """
        terms = []
        for i, (f, r) in enumerate(zip(a, b, strict=True)):
            scale = r.square().mean((0, 2, 3), keepdim=True).add(1e-6).rsqrt()
            stride = self.STRIDES[min(i, len(self.STRIDES) - 1)]
            size = min(max(2, self.WINDOW // stride), *f.shape[2:])
            (mean_f, deviation_f), (mean_r, deviation_r) = (moments(x * scale, size) for x in (f, r))
            differences = torch.stack([(mean_f - mean_r).abs(), (deviation_f - deviation_r).abs()])
            terms.append(differences.mean((2, 3, 4)).sum(0))
        return torch.stack(terms).mean(0)

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """The loss between activations, [N]."""
        terms = [(unit(f) - unit(r)).square().sum(1).mean((1, 2)) for f, r in zip(a, b, strict=True)]
        return torch.stack(terms).sum(0)
