"""Reads photographs for the benchmarks, from a folder or a .tar."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sprdiff.errors import SprdiffError
from sprdiff.imageio.open import open_rgb

Pixels = NDArray[np.uint8]


def guarded(main: Callable[[], None]) -> None:
    """Run a benchmark; an error of its arguments or files ends it with one line."""
    try:
        main()
    except (OSError, ValueError, tarfile.TarError, SprdiffError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def photographs(source: Path) -> Iterator[tuple[str, Pixels]]:
    """Yield name and pixels, uint8 [H, W, 3], of every image file, in order."""
    for name, data in _members(source):
        if not name.endswith((".csv", ".json", ".txt", ".md")):
            yield name, open_rgb(data).pixels


def cut(source: Path, size: tuple[int, int]) -> Iterator[Pixels]:
    """Yield the middle (height, width) of every photograph that is large enough."""
    for _, pixels in photographs(source):
        top, left = ((side - want) // 2 for side, want in zip(pixels.shape[:2], size, strict=True))
        if top >= 0 and left >= 0:
            yield np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        yield from ((path.name, path.read_bytes()) for path in sorted(source.iterdir()) if path.is_file())
        return
    with tarfile.open(source) as archive:
        for member in archive:
            handle = archive.extractfile(member)
            if handle is not None:
                yield Path(member.name).name, handle.read()
