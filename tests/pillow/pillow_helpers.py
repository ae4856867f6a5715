"""Small `.sprd` files and the plug-in with its former options, for the tests of Pillow and the desktop."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache

import pytest
from PIL import Image, ImageFile

import sprdiff
import sprdiff.pillow
from conftest import photo
from sprdiff.format.container import Header, pack_file

SIZE = (96, 64)
HEADER = 12
"""The bytes of the header and the check of `sprd()`."""


@cache
def sprd(height: int = 64, width: int = 96, quality: float = 30, grey: bool = False) -> bytes:
    image = Image.fromarray(photo(height, width))
    return sprdiff.encode(image.convert("L") if grey else image, quality=quality)


def opened(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data))


def empty(width: int, height: int) -> bytes:
    """Make a header of any size, of weights that nobody has, with nothing behind it."""
    return pack_file(Header(width, height, 0, 0, False, 1, b"??"), b"", b"?" * 32)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget after a test what it has registered."""
    monkeypatch.setattr(sprdiff.pillow, "_options", sprdiff.pillow._options)
    yield
