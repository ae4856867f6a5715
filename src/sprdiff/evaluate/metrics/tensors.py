"""What the networks for measuring share: torch on demand, checked images, checked parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.common import extras
from sprdiff.errors import ImageError, WeightsError
from sprdiff.evaluate.metrics.distortion import Bytes

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
Features = NDArray[np.float32]


def need(module: str) -> Any:
    """Import a module that only measuring needs.

    Raises:
        SprdiffError: it is not installed; the message says how to install it.
    """
    return extras.need(module, "eval", what="this measurement")


def check_rgb(image: Bytes, side: int) -> None:
    """Raise ImageError unless the image [H, W, C] has three channels and both sides at least `side`
    pixels."""
    if image.shape[2] != 3:
        raise ImageError(f"expected RGB, got {image.shape[2]} channels")
    if min(image.shape[:2]) < side:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ImageError(f"this measurement needs at least {side} pixels on each side, got {size}")


def parameters(
    arrays: Mapping[str, Array] | Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], network: str
) -> dict[str, Tensor]:
    """Return the named arrays as float32 tensors of their own memory; what `shapes` does not name is left
    out.

    Raises:
        WeightsError: an array is missing or has another shape; `network` opens the message.
        SprdiffError: torch is not installed.
    """
    need("torch")
    tensors = {}
    for name, shape in shapes.items():
        if name not in arrays or tuple(arrays[name].shape) != shape:
            found = list(arrays[name].shape) if name in arrays else "nothing"
            raise WeightsError(f"{network}: {name} must be {list(shape)}, found {found}")
        tensors[name] = _own(arrays[name])
    return tensors


def _own(array: Array | Tensor) -> Tensor:
    """Return a float32 copy as a tensor; numpy's own conversion of tensors is avoided, because it warns."""
    torch = need("torch")
    copy: Tensor
    if isinstance(array, np.ndarray):
        copy = torch.from_numpy(np.array(array, dtype=np.float32))
    else:
        copy = array.detach().to(torch.float32, copy=True)
    return copy


def planes(pixels: Bytes) -> Tensor:
    """Return uint8 [N, H, W, C], 0-255, as float32 [N, C, H, W], still 0-255."""
    tensor: Tensor = need("torch").from_numpy(
        np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    )
    return tensor


def channels_last(kernel: Tensor) -> Tensor:
    """Return the same kernel [out, in, height, width] laid out channels last: convolutions take 15 to 30%
    less time."""
    return kernel.to(memory_format=need("torch").channels_last)


def unit_channels(tap: Tensor) -> Tensor:
    """Scale the channels [N, C, H, W] to unit length; where all are zero they stay zero."""
    return tap / (tap.square().sum(1, keepdim=True).sqrt() + 1e-10)
