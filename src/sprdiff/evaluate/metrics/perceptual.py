"""LPIPS and DISTS: distances of two images on a published network (torch is imported on first use).

::

    LPIPS   x/127.5 - 1 ─ shift, scale ─ AlexNet or VGG16 ─ five taps ─ unit channels
                  ─ squared difference ─ learned weight per channel ─ mean, sum
    DISTS   x/255 ─ mean, deviation ─ VGG16 with L2 pooling ─ five taps and x
                  ─ means and covariances per channel ─ learned weight per channel ─ 1 - sum

Both are computed at the images' own size, without resizing, as codecs are compared in the literature. Values
equal those of the packages lpips 0.1.4 and DISTS_pytorch 0.1 (checked by tests;
`scripts/make_metric_references.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sprdiff.errors import WeightsError
from sprdiff.evaluate.metrics import backbones
from sprdiff.evaluate.metrics.distortion import Bytes, check_pair
from sprdiff.evaluate.metrics.tensors import (
    Array,
    channels_last,
    check_rgb,
    need,
    parameters,
    planes,
    unit_channels,
)

if TYPE_CHECKING:
    from torch import Tensor

Net = Literal["alex", "vgg"]
Arrays = Mapping[str, Array] | Mapping[str, "Tensor"]
Pool = Callable[["Tensor"], "Tensor"]

MIN_SIDE = 32
"""Smallest side of an image, in pixels: AlexNet's last tap is one position wide there."""

# LPIPS's own constants for images in [-1, 1]; DISTS's are torchvision's for images in [0, 1].
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_DISTS_MEAN, _DISTS_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DISTS_C = 1e-6


@dataclass(frozen=True)
class _Conv:
    """A convolution; `place` is its number in torchvision's ``features``, which names its parameters."""

    place: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Architecture:
    """Convolutions, each with a ReLU, in five stages; a tap at the end of each, pooling before some.

    Attributes:
        pooled: whether a stage begins with pooling.
        window: side of the max pooling; its stride is 2.
    """

    name: str
    stages: tuple[tuple[_Conv, ...], ...]
    pooled: tuple[bool, ...]
    window: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the taps."""
        return tuple(stage[-1].outputs for stage in self.stages)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters."""
        shapes: dict[str, tuple[int, ...]] = {}
        for conv in (conv for stage in self.stages for conv in stage):
            shapes[f"features.{conv.place}.weight"] = (conv.outputs, conv.inputs, conv.kernel, conv.kernel)
            shapes[f"features.{conv.place}.bias"] = (conv.outputs,)
        return shapes


ALEXNET = Architecture(
    "AlexNet",
    (
        (_Conv(0, 3, 64, kernel=11, stride=4, padding=2),),
        (_Conv(3, 64, 192, kernel=5, padding=2),),
        (_Conv(6, 192, 384),),
        (_Conv(8, 384, 256),),
        (_Conv(10, 256, 256),),
    ),
    pooled=(False, True, True, False, False),
    window=3,
)
"""torchvision's AlexNet (Krizhevsky 2014, "one weird trick"), taps after each ReLU."""

VGG16 = Architecture(
    "VGG16",
    (
        (_Conv(0, 3, 64), _Conv(2, 64, 64)),
        (_Conv(5, 64, 128), _Conv(7, 128, 128)),
        (_Conv(10, 128, 256), _Conv(12, 256, 256), _Conv(14, 256, 256)),
        (_Conv(17, 256, 512), _Conv(19, 512, 512), _Conv(21, 512, 512)),
        (_Conv(24, 512, 512), _Conv(26, 512, 512), _Conv(28, 512, 512)),
    ),
    pooled=(False, True, True, True, True),
    window=2,
)
"""torchvision's VGG16 (Simonyan and Zisserman 2015), taps relu1_2, 2_2, 3_3, 4_3, 5_3."""

_LPIPS_NETS: dict[Net, tuple[Architecture, str, str]] = {
    "alex": (ALEXNET, "alexnet", "lpips_alex"),
    "vgg": (VGG16, "vgg16", "lpips_vgg"),
}
_DISTS_CHANNELS = (3, *VGG16.channels)


class Trunk:
    """The convolutions of an architecture.

    Args:
        arrays: ``features.N.{weight,bias}``, weights [out, in, height, width]; others are left out.

    Raises:
        WeightsError: an array is missing or has another shape.
        SprdiffError: torch is not installed.
    """

    def __init__(self, architecture: Architecture, arrays: Arrays) -> None:
        self.architecture = architecture
        checked = parameters(arrays, architecture.shapes, architecture.name)
        self._parameters = {name: channels_last(x) if x.ndim == 4 else x for name, x in checked.items()}

    def taps(self, x: Tensor, pool: Pool | None = None) -> Iterator[Tensor]:
        """Yield the five taps [N, C, H, W] of a normalised batch [N, 3, H, W], one at a time.

        Args:
            pool: what to do instead of max pooling.
        """
        F = need("torch").nn.functional
        for stage, pooled in zip(self.architecture.stages, self.architecture.pooled, strict=True):
            if pooled:
                x = pool(x) if pool else F.max_pool2d(x, self.architecture.window, 2)
            for conv in stage:
                name = f"features.{conv.place}"
                weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
                x = F.conv2d(x, weight, bias, conv.stride, conv.padding).relu_()
            yield x


class Lpips:
    """Learned perceptual image patch similarity v0.1 (Zhang et al., CVPR 2018).

    Args:
        net: ``"alex"`` or ``"vgg"``: two metrics, whose values do not compare.
        backbone: ``features.N.{weight,bias}`` of torchvision's AlexNet or VGG16.
        heads: ``linN.model.1.weight`` [1, C, 1, 1], N = 0…4.

    Raises:
        WeightsError: an array is missing or has another shape.
        SprdiffError: torch is not installed.
    """

    def __init__(self, net: Net, backbone: Arrays, heads: Arrays) -> None:
        architecture = _LPIPS_NETS[net][0]
        shapes = {f"lin{n}.model.1.weight": (1, c, 1, 1) for n, c in enumerate(architecture.channels)}
        self._trunk = Trunk(architecture, backbone)
        self._heads = list(parameters(heads, shapes, f"LPIPS heads for {architecture.name}").values())

    @classmethod
    def load(cls, net: Net = "alex", folder: str | Path | None = None) -> Lpips:
        """Load the published weights, which `backbones.find` finds.

        Raises:
            MissingWeightsError, ChecksumError, WeightsError, SprdiffError: as `backbones.load`.
        """
        _, backbone, heads = _LPIPS_NETS[net]
        # The heads come first: if they are missing, half a gigabyte of VGG16 need not be read to say so.
        return cls(net, heads=backbones.load(heads, folder), backbone=backbones.load(backbone, folder))

    def distance(self, a: Bytes, b: Bytes) -> float:
        """Return LPIPS of two images, 0 (identical) and up, rarely above 1; smaller is better.

        Args:
            a, b: uint8 RGB [H, W, 3], both sides at least ``MIN_SIDE`` pixels.

        Raises:
            ImageError: other types, different shapes, or too small.
        """
        _check(a, b)
        with need("torch").inference_mode():
            # Both run in step, tap by tap, so that only two taps are held at a time, not ten.
            taps = zip(self._heads, self._taps(a), self._taps(b), strict=True)
            return float(sum(_lpips_term(head, p, q) for head, p, q in taps))

    def _taps(self, image: Bytes) -> Iterator[Tensor]:
        x = planes(image[None]) / 127.5 - 1.0
        return self._trunk.taps(_normalise(x, _LPIPS_SHIFT, _LPIPS_SCALE))


class Dists:
    """Deep image structure and texture similarity (Ding, Ma, Wang, Simoncelli, TPAMI 2022).

    Args:
        backbone: ``features.N.{weight,bias}`` of torchvision's VGG16.
        weights: ``alpha`` and ``beta``, each [1, 1475, 1, 1]: not negative, of any sum but zero.

    Raises:
        WeightsError: an array is missing or has another shape, or all weights are zero.
        SprdiffError: torch is not installed.
    """

    def __init__(self, backbone: Arrays, weights: Arrays) -> None:
        size = (1, sum(_DISTS_CHANNELS), 1, 1)
        both = parameters(weights, {"alpha": size, "beta": size}, "DISTS")
        total = both["alpha"].sum() + both["beta"].sum()
        if not float(total) > 0.0:
            raise WeightsError(f"DISTS: alpha and beta must have a positive sum, got {float(total)}")
        self._trunk = Trunk(VGG16, backbone)
        self._alpha = (both["alpha"] / total).split(_DISTS_CHANNELS, 1)
        self._beta = (both["beta"] / total).split(_DISTS_CHANNELS, 1)

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Dists:
        """Load the published weights, which `backbones.find` finds.

        Raises:
            MissingWeightsError, ChecksumError, WeightsError, SprdiffError: as `backbones.load`.
        """
        return cls(weights=backbones.load("dists", folder), backbone=backbones.load("vgg16", folder))

    def distance(self, a: Bytes, b: Bytes) -> float:
        """Return DISTS of two images, 0 (identical) to about 1; smaller is better.

        Args:
            a, b: uint8 RGB [H, W, 3], both sides at least ``MIN_SIDE`` pixels.

        Raises:
            ImageError: other types, different shapes, or too small.
        """
        _check(a, b)
        with need("torch").inference_mode():
            taps = zip(self._alpha, self._beta, self._taps(a), self._taps(b), strict=True)
            similarity = float(sum(_dists_term(alpha, beta, p, q) for alpha, beta, p, q in taps))
        # The weights sum to one only up to float32: identical images would differ by 1e-7.
        return max(0.0, 1.0 - similarity)

    def _taps(self, image: Bytes) -> Iterator[Tensor]:
        """Yield the image itself in [0, 1], then the five taps."""
        x = planes(image[None]) / 255.0
        yield x
        yield from self._trunk.taps(_normalise(x, _DISTS_MEAN, _DISTS_DEVIATION), _l2_pool)


def _check(a: Bytes, b: Bytes) -> None:
    check_pair(a, b)
    check_rgb(a, MIN_SIDE)


def _normalise(x: Tensor, shift: tuple[float, ...], scale: tuple[float, ...]) -> Tensor:
    """Return ``(x - shift) / scale`` per channel of [N, 3, H, W]."""
    tensor = need("torch").tensor
    return (x - tensor(shift)[:, None, None]) / tensor(scale)[:, None, None]


def _lpips_term(head: Tensor, p: Tensor, q: Tensor) -> Tensor:
    difference = (unit_channels(p) - unit_channels(q)).square_()
    return (difference * head).sum(1).mean().double()


def _dists_term(alpha: Tensor, beta: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Return the weighted similarity of means (texture) and of structure, summed over channels."""
    mean_p, mean_q = p.mean((2, 3), keepdim=True), q.mean((2, 3), keepdim=True)
    texture = (2.0 * mean_p * mean_q + _DISTS_C) / (mean_p.square() + mean_q.square() + _DISTS_C)
    p, q = p - mean_p, q - mean_q
    variances = p.square().mean((2, 3), keepdim=True) + q.square().mean((2, 3), keepdim=True)
    covariance = (p * q).mean((2, 3), keepdim=True)
    structure = (2.0 * covariance + _DISTS_C) / (variances + _DISTS_C)
    return (alpha * texture + beta * structure).sum().double()


def _l2_pool(x: Tensor) -> Tensor:
    """Return the root of the Hann-weighted mean square over 3x3 windows, stride 2: pooling without
    aliasing."""
    torch = need("torch")
    hann = np.hanning(5)[1:-1] / np.hanning(5).sum()
    kernel = torch.tensor(np.outer(hann, hann), dtype=torch.float32).expand(x.shape[1], 1, 3, 3)
    pooled: Tensor = torch.nn.functional.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1])
    return pooled.add_(1e-12).sqrt_()
