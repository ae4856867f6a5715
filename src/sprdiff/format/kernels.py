"""Weights as they are stored: half floats, and large kernels as int8 with a scale for each output channel.

    NAME         float16 [...], or int8 [C, ...] of at least 1,024 numbers from -127 to 127
    scale.NAME   float32 [C]: an int8 kernel is scale * int8, its first axis are the output channels

Folders of weights and checkpoints that travel hold both kinds. Hashes cover the arrays as they are stored,
and networks compute in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]

SCALE = "scale."
"""The prefix of the name of a kernel's scales."""
SMALLEST_KERNEL = 1024
"""How many numbers a kernel has at least that is stored as int8: in smaller ones there is little to save."""
LARGEST = 127
"""The largest magnitude of a stored number; int8 also has -128, whose opposite it lacks."""
_SMALLEST = 1e-12
"""The magnitude that a channel of zeros is taken to have, because a scale of 0 cannot divide."""


def is_large(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is stored as int8: it is a kernel, and not a small one."""
    return len(shape) > 1 and math.prod(shape) >= SMALLEST_KERNEL


def to_bytes(kernel: NDArray[Any]) -> tuple[NDArray[np.int8], Floats]:
    """Round a kernel [C, ...] to int8 of its shape and scales float32 [C]; it errs by half a scale at
    most."""
    kernel = kernel.astype(np.float32)
    largest = np.abs(kernel.reshape(len(kernel), -1)).max(1)
    scale = np.maximum(largest, np.float32(_SMALLEST)) / np.float32(LARGEST)
    return np.rint(kernel / _along(scale, kernel)).astype(np.int8), scale


def from_bytes(kernel: NDArray[Any], scale: NDArray[Any]) -> Floats:
    """Return int8 [C, ...] times scales [C] as float32."""
    return kernel.astype(np.float32) * _along(scale.astype(np.float32), kernel)


def packed(weights: Arrays, half: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Return weights, arrays of floats by name, as they are stored.

    Args:
        half: prefixes of the names of weights whose kernels stay half floats.
    """
    stored: dict[str, NDArray[Any]] = {}
    for name, value in weights.items():
        if is_large(value.shape) and not name.startswith(half):
            stored[name], stored[SCALE + name] = to_bytes(value)
        else:
            stored[name] = value.astype(np.float16)
    return stored


def unpacked(stored: Arrays) -> dict[str, Floats]:
    """Return all weights as float32, by their names.

    Raises:
        ValueError: as `check_packed`.
    """
    check_packed(stored)
    return {name: floats_of(stored, name) for name in stored if not name.startswith(SCALE)}


def floats_of(stored: Arrays, name: str) -> Floats:
    """Return one weight as float32, of arrays that `check_packed` has accepted."""
    value = stored[name]
    return from_bytes(value, stored[SCALE + name]) if value.dtype == np.int8 else value.astype(np.float32)


def check_packed(stored: Arrays) -> None:
    """Check that arrays are floats, or int8 kernels with their scales, and that no scale is left over.

    Raises:
        ValueError: they are not, or a scale has another shape or type, or makes values that are not numbers.
    """
    for name in sorted(stored):
        if name.startswith(SCALE):
            kernel = stored.get(name.removeprefix(SCALE))
            if kernel is None or kernel.dtype != np.int8:
                raise ValueError(f"{name} belongs to no kernel of int8")
        elif stored[name].dtype == np.int8:
            _check_scale(name, stored[name].shape, stored.get(SCALE + name))
        elif stored[name].dtype.kind != "f":
            raise ValueError(
                f"{name} holds {stored[name].dtype}, and weights are floats, or int8 with scales"
            )


def _check_scale(name: str, shape: Sequence[int], scale: NDArray[Any] | None) -> None:
    if scale is None:
        raise ValueError(f"the int8 kernel {name} has no {SCALE}{name}")
    # Another shape could be broadcast to far more numbers than are stored.
    if len(shape) < 2 or scale.shape != tuple(shape[:1]) or (scale.dtype.kind, scale.itemsize) != ("f", 4):
        raise ValueError(
            f"{SCALE}{name} is {scale.dtype} {list(scale.shape)}, "
            f"which does not fit the int8 kernel {name} {list(shape)}: it must be float32, one a channel"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(scale.astype(np.float32) * np.float32(LARGEST + 1)).all():
            raise ValueError(f"{SCALE}{name} makes values that are not numbers")


def _along(scale: NDArray[Any], kernel: NDArray[Any]) -> NDArray[Any]:
    return scale.reshape(-1, *[1] * (kernel.ndim - 1))
