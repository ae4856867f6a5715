"""Tests of weights as they are stored: half floats, and large kernels as int8 with scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sprdiff.format.kernels import SCALE, check_packed, floats_of, is_large, packed, to_bytes, unpacked

RANDOM = np.random.default_rng(0)


def test_only_large_kernels_are_bytes() -> None:
    assert is_large((32, 32)) and is_large((1, 1024, 1, 1))
    assert not is_large((31, 33)) and not is_large((4096,)) and not is_large(())


@pytest.mark.parametrize("shape", [(64, 16), (8, 16, 3, 3), (144, 1, 3, 3), (1, 1024)])
def test_bytes_are_within_half_a_scale(shape: tuple[int, ...]) -> None:
    sizes = np.logspace(-6, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    kernel = (RANDOM.standard_normal(shape) * sizes).astype(np.float32)
    stored = packed({"a": kernel})
    assert {name: (str(array.dtype), array.shape) for name, array in stored.items()} == {
        "a": ("int8", shape),
        "scale.a": ("float32", shape[:1]),
    }
    assert np.abs(stored["a"].reshape(len(kernel), -1).astype(int)).max(1).tolist() == [127] * len(kernel)
    found = unpacked(stored)["a"]
    error = np.abs(found - kernel).reshape(len(kernel), -1).max(1)
    assert found.dtype == np.float32 and (error <= 0.5001 * stored["scale.a"]).all()


def test_kernels_may_stay_half_floats() -> None:
    kernel = RANDOM.standard_normal((32, 32)).astype(np.float32)
    stored = packed({"flow.a": kernel, "b": kernel}, half=("flow.",))
    assert {n: str(a.dtype) for n, a in stored.items()} == {
        "flow.a": "float16",
        "b": "int8",
        "scale.b": "float32",
    }


def test_channels_of_zeros_stay_zeros() -> None:
    kernel = RANDOM.standard_normal((32, 32)).astype(np.float32)
    kernel[3] = 0
    found = unpacked(packed({"a": kernel, "b": np.zeros((32, 32))}))
    assert not found["a"][3].any() and found["a"][4].any() and not found["b"].any()


def test_everything_else_is_half_floats() -> None:
    weights = {"bias": RANDOM.standard_normal(2000), "small": RANDOM.standard_normal((31, 33))}
    stored = packed(weights)
    assert stored.keys() == weights.keys()
    for name, value in weights.items():
        assert stored[name].dtype == np.float16
        assert np.array_equal(unpacked(stored)[name], value.astype(np.float16).astype(np.float32))


def test_folders_of_half_floats_alone_are_read() -> None:
    stored = {"a": RANDOM.standard_normal((64, 64)).astype(np.float16)}
    check_packed(stored)
    assert np.array_equal(floats_of(stored, "a"), stored["a"].astype(np.float32))


KERNEL, SCALES = to_bytes(RANDOM.standard_normal((32, 40)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale.a": None}, r"the int8 kernel a has no scale\.a$"),
        (
            {"scale.a": SCALES[:1]},
            r"scale\.a is float32 \[1\], which does not fit the int8 kernel a \[32, 40\]",
        ),
        ({"scale.a": SCALES[:, None]}, r"scale\.a is float32 \[32, 1\], which"),
        ({"scale.a": np.float32(1).reshape(())}, r"scale\.a is float32 \[\], which"),
        ({"scale.a": SCALES.astype(np.float16)}, r"scale\.a is float16 \[32\], which"),
        ({"scale.a": SCALES.astype(np.float64)}, r"scale\.a is float64 \[32\], which"),
        ({"scale.a": KERNEL[:, 0]}, r"scale\.a is int8 \[32\], which"),
        ({"scale.a": SCALES * np.float32("nan")}, r"scale\.a makes values that are not numbers"),
        ({"scale.a": SCALES * np.float32("inf")}, r"scale\.a makes values that are not numbers"),
        ({"scale.a": np.full(32, 3e38, np.float32)}, r"scale\.a makes values that are not numbers"),
        ({"a": None}, r"scale\.a belongs to no kernel of int8"),
        ({"a": KERNEL.astype(np.float16)}, r"scale\.a belongs to no kernel of int8"),
        ({"a": KERNEL.astype(np.int16)}, "a holds int16, and weights are floats"),
        ({"a": KERNEL.view(np.uint8)}, "a holds uint8, and weights are floats"),
        ({"a": KERNEL[:, 0]}, r"does not fit the int8 kernel a \[32\]"),
        ({"scale.scale.a": SCALES}, r"scale\.scale\.a belongs to no kernel of int8"),
    ],
)
def test_whatever_is_not_a_weight_is_refused(changes: dict[str, NDArray[Any] | None], message: str) -> None:
    sound: dict[str, NDArray[Any]] = {"a": KERNEL, SCALE + "a": SCALES}
    check_packed(sound)
    stored = {name: array for name, array in {**sound, **changes}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        unpacked(stored)
