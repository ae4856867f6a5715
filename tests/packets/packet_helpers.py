"""Files for the tests of packets, with a valid header and any stream."""

from __future__ import annotations

import numpy as np

from sprdiff.format.container import Header, pack_file

HASH = b"ab" * 16


def file_of(size: int, seed: int = 0) -> bytes:
    """Make an ``.sprd`` file of `size` bytes, 14 of them header, of weights that do not exist."""
    stream = np.random.default_rng(seed).integers(1, 256, size - 14).astype(np.uint8).tobytes()
    return pack_file(Header(768, 512, 100, 0, False, 1, HASH[:2]), stream, HASH)
