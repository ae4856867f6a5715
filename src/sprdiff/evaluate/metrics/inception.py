"""The Inception V3 that FID and KID are defined on, up to its 2048 pooled features (torch on first use).

::

    x/127.5 - 1, 299x299 ─ stem, 192 at 35x35 ─ 5b 5c 5d ─ 6a, 768 at 17x17 ─ 6b…6e ─┐
                                                         mean ─ 7b 7c ─ 7a, 1280 at 8x8 ─┘

The network of TensorFlow's ``inception-2015-12-05`` as pytorch-fid 0.3.0 publishes it (Szegedy et al., CVPR
2016). Two oddities of that release are part of the definition: average pooling does not count the padding,
and 7c pools by maximum. Batch normalisation (epsilon 0.001) is folded into the convolutions, which changes
nothing but the rounding. Resizing is bilinear without anti-aliasing, as in pytorch-fid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sprdiff.errors import ImageError
from sprdiff.evaluate.metrics import backbones
from sprdiff.evaluate.metrics.distortion import Bytes
from sprdiff.evaluate.metrics.distributions import hific_patches
from sprdiff.evaluate.metrics.tensors import Array, Features, channels_last, need, parameters, planes

if TYPE_CHECKING:
    from torch import Tensor

Arrays = Mapping[str, Array] | Mapping[str, "Tensor"]
Kernel = tuple[int, int, int]  # channels, height, width
Step = Kernel | tuple[Kernel, Kernel]  # two kernels: both run on the same input and are joined
Chain = tuple[Step, ...]

DIMENSIONS = 2048
SIDE = 299

_BATCH = 16
_EPSILON = 0.001
_POINT, _SQUARE = (1, 1), (3, 3)


@dataclass(frozen=True)
class _Block:
    """Chains of convolutions side by side, joined; then one on the pooled input, or the pooled input itself.

    Attributes:
        pool: 3x3; "shrink" is by maximum with stride 2, and then every chain ends with stride 2.
        pooled: channels of the convolution after pooling; 0 for none.
        chains: by their published names.
    """

    pool: Literal["average", "maximum", "shrink"]
    pooled: int
    chains: dict[str, Chain]


def _block_5(pooled: int) -> _Block:
    double: Chain = ((64, *_POINT), (96, *_SQUARE), (96, *_SQUARE))
    chains: dict[str, Chain] = {"branch1x1": ((64, *_POINT),), "branch5x5": ((48, *_POINT), (64, 5, 5))}
    return _Block("average", pooled, {**chains, "branch3x3dbl": double})


def _block_6(c: int) -> _Block:
    double: Chain = ((c, *_POINT), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7))
    single: Chain = ((c, *_POINT), (c, 1, 7), (192, 7, 1))
    return _Block(
        "average", 192, {"branch1x1": ((192, *_POINT),), "branch7x7": single, "branch7x7dbl": double}
    )


def _block_7(pool: Literal["average", "maximum"]) -> _Block:
    fork = ((384, 1, 3), (384, 3, 1))
    double: Chain = ((448, *_POINT), (384, *_SQUARE), fork)
    single: Chain = ((384, *_POINT), fork)
    return _Block(pool, 192, {"branch1x1": ((320, *_POINT),), "branch3x3": single, "branch3x3dbl": double})


# Name, kernel, stride, padding; None is 3x3 max pooling with stride 2.
_STEM: tuple[tuple[str, Kernel, int, int] | None, ...] = (
    ("Conv2d_1a_3x3", (32, *_SQUARE), 2, 0),
    ("Conv2d_2a_3x3", (32, *_SQUARE), 1, 0),
    ("Conv2d_2b_3x3", (64, *_SQUARE), 1, 1),
    None,
    ("Conv2d_3b_1x1", (80, *_POINT), 1, 0),
    ("Conv2d_4a_3x3", (192, *_SQUARE), 1, 0),
    None,
)
_BLOCKS = {
    "Mixed_5b": _block_5(32),
    "Mixed_5c": _block_5(64),
    "Mixed_5d": _block_5(64),
    "Mixed_6a": _Block(
        "shrink",
        0,
        {"branch3x3": ((384, *_SQUARE),), "branch3x3dbl": ((64, *_POINT), (96, *_SQUARE), (96, *_SQUARE))},
    ),
    "Mixed_6b": _block_6(128),
    "Mixed_6c": _block_6(160),
    "Mixed_6d": _block_6(160),
    "Mixed_6e": _block_6(192),
    "Mixed_7a": _Block(
        "shrink",
        0,
        {
            "branch3x3": ((192, *_POINT), (320, *_SQUARE)),
            "branch7x7x3": ((192, *_POINT), (192, 1, 7), (192, 7, 1), (192, *_SQUARE)),
        },
    ),
    "Mixed_7b": _block_7("average"),
    "Mixed_7c": _block_7("maximum"),
}


class Inception:
    """FID's Inception V3, for measuring only.

    Args:
        arrays: ``LAYER.conv.weight`` [out, in, height, width] and ``LAYER.bn.{weight,bias,running_mean,
            running_var}``, LAYER as ``Conv2d_1a_3x3`` or ``Mixed_5b.branch1x1``; others are left out.

    Raises:
        WeightsError: an array is missing or has another shape.
        SprdiffError: torch is not installed.
    """

    def __init__(self, arrays: Arrays) -> None:
        checked = parameters(arrays, shapes(), "Inception V3")
        self._layers = {name: _folded(checked, name) for name, _, _ in _layers()}

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Inception:
        """Load the published weights, which `backbones.find` finds.

        Raises:
            MissingWeightsError, ChecksumError, WeightsError, SprdiffError: as `backbones.load`.
        """
        return cls(backbones.load("inception", folder))

    def features(self, images: Bytes) -> Features:
        """Return the pooled features float32 [N, 2048] of images of one size.

        Args:
            images: uint8 RGB [N, H, W, 3]; resized to 299x299.

        Raises:
            ImageError: another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.size == 0:
            raise ImageError(f"expected uint8 RGB [N, H, W, 3], got {images.dtype} {list(images.shape)}")
        with need("torch").inference_mode():
            batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
            return np.concatenate([self._pooled(batch).numpy() for batch in batches])

    def patch_features(self, image: Bytes) -> Features:
        """Return the features float32 [N, 2048] of an image's 256x256 patches
        (`distributions.hific_patches`).

        Args:
            image: uint8 RGB [H, W, 3], both sides at least 256 pixels.

        Raises:
            ImageError: another type, or too small.
        """
        return self.features(hific_patches(image))

    def _pooled(self, images: Bytes) -> Tensor:
        F = need("torch").nn.functional
        x = F.interpolate(planes(images) / 255.0, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = 2.0 * x - 1.0
        for layer in _STEM:
            if layer is None:
                x = F.max_pool2d(x, 3, 2)
            else:
                name, _, stride, padding = layer
                x = F.conv2d(x, *self._layers[name], stride, padding).relu_()
        for name, block in _BLOCKS.items():
            x = self._block(name, block, x)
        return x.mean((2, 3))

    def _block(self, name: str, block: _Block, x: Tensor) -> Tensor:
        outputs = [self._chain(name, block, branch, x) for branch in block.chains]
        pooled = _pool(x, block)
        joined: Tensor = need("torch").cat(
            [*outputs, self._convolve(f"{name}.branch_pool", pooled) if block.pooled else pooled], 1
        )
        return joined

    def _chain(self, name: str, block: _Block, branch: str, x: Tensor) -> Tensor:
        steps = list(_steps(branch, block.chains[branch]))
        for number, step in enumerate(steps, start=1):
            stride = 2 if block.pool == "shrink" and number == len(steps) else 1
            outputs = [self._convolve(f"{name}.{layer}", x, stride) for layer, _ in step]
            x = need("torch").cat(outputs, 1)
        return x

    def _convolve(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = self._layers[name]
        # Inside the blocks a convolution either keeps the size or halves it without padding.
        padding = (weight.shape[2] // 2, weight.shape[3] // 2) if stride == 1 else 0
        y: Tensor = need("torch").nn.functional.conv2d(x, weight, bias, stride, padding)
        return y.relu_()


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the parameters."""
    found: dict[str, tuple[int, ...]] = {}
    for name, inputs, (channels, height, width) in _layers():
        found[f"{name}.conv.weight"] = (channels, inputs, height, width)
        found |= {
            f"{name}.bn.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")
        }
    return found


def _layers() -> Iterator[tuple[str, int, Kernel]]:
    """Yield the name, input channels and kernel of every convolution, in order."""
    channels = 3
    for name, kernel, _, _ in filter(None, _STEM):
        yield name, channels, kernel
        channels = kernel[0]
    for name, block in _BLOCKS.items():
        joined = block.pooled or channels
        for branch, chain in block.chains.items():
            inputs = channels
            for step in _steps(branch, chain):
                yield from ((f"{name}.{layer}", inputs, kernel) for layer, kernel in step)
                inputs = sum(kernel[0] for _, kernel in step)
            joined += inputs
        if block.pooled:
            yield f"{name}.branch_pool", channels, (block.pooled, *_POINT)
        channels = joined


def _steps(branch: str, chain: Chain) -> Iterator[Sequence[tuple[str, Kernel]]]:
    """Yield the layers of each step with their published names: ``b``, or ``b_1``, ``b_2``, or ``b_2a``
    beside ``b_2b``."""
    for number, step in enumerate(chain, start=1):
        name = branch if len(chain) == 1 else f"{branch}_{number}"
        if isinstance(step[0], tuple):
            first, second = step
            assert isinstance(first, tuple) and isinstance(second, tuple)
            yield (f"{name}a", first), (f"{name}b", second)
        else:
            yield ((name, step),)


def _pool(x: Tensor, block: _Block) -> Tensor:
    F = need("torch").nn.functional
    pooled: Tensor
    if block.pool == "average":
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    elif block.pool == "maximum":
        pooled = F.max_pool2d(x, 3, 1, 1)
    else:
        pooled = F.max_pool2d(x, 3, 2)
    return pooled


def _folded(arrays: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the convolution with its batch normalisation, computed in float64."""
    mean, variance = arrays[f"{name}.bn.running_mean"].double(), arrays[f"{name}.bn.running_var"].double()
    scale = arrays[f"{name}.bn.weight"].double() / (variance + _EPSILON).sqrt()
    weight = arrays[f"{name}.conv.weight"].double() * scale[:, None, None, None]
    return channels_last(weight.float()), (arrays[f"{name}.bn.bias"].double() - mean * scale).float()
