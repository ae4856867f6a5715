"""The hash of a set of arrays, over their contents, never over the bytes of .npz or ONNX files.

That of the exact part is H, by which files name their weights; decoder and encoder have hashes of their own.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import WeightsError

Arrays = Mapping[str, NDArray[Any]]


def canonical_hash(arrays: Arrays) -> bytes:
    """Return SHA-256 (32 bytes) over arrays sorted by name; over those of ``entropy.npz`` it is H.

    Each array is fed as: name in UTF-8, a 0 byte, dtype as numpy writes it for little-endian data ("<i2",
    "|u1"), a 0 byte, number of dimensions (u8), each dimension (u32 little-endian), the values little-endian
    in C order. Arrays are hashed as stored (`kernels`: fp16, int8 and scales), so the hash does not depend on
    the runtime that computes with them.

    Raises:
        WeightsError: an array holds something other than numbers.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        _feed(digest, name, np.asarray(arrays[name]))
    return digest.digest()


def _feed(digest: Any, name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "iuf":
        raise WeightsError(f"the array {name} holds {array.dtype}, not numbers")
    little = array.dtype.newbyteorder("<")
    digest.update(name.encode() + b"\0" + little.str.encode() + b"\0")
    digest.update(struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
    digest.update(np.ascontiguousarray(array, dtype=little).tobytes())
