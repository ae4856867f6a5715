"""Tests of resampling, in strips too, and of the tiles of a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import photo
from sprdiff.imageio.resize import resize, tiles


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_resize_is_nearly_pillows(height: int, width: int, new_height: int, new_width: int) -> None:
    pixels = photo(height, width)
    want = np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.LANCZOS))
    assert np.abs(resize(pixels, (new_height, new_width)).astype(int) - want).max() <= 2


@pytest.mark.parametrize("size", [(37, 300), (301, 40), (700, 640)])
def test_resize_in_strips_agrees(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photo(217, 190)
    whole = resize(pixels, size).astype(int)
    monkeypatch.setattr("sprdiff.imageio.resize.STRIP_PIXELS", 5000)
    assert np.abs(resize(pixels, size) - whole).max() <= 1


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 130),
    st.integers(0, 70),
    st.sampled_from([1, 8, 64]),
)
def test_tiles_cover_once(height: int, width: int, tile: int, halo: int, multiple: int) -> None:
    count = np.zeros((height, width), int)
    grid = np.arange(height * width).reshape(height, width)
    for part in tiles(height, width, tile, halo, multiple):
        count[part.core] += 1
        assert np.array_equal(grid[part.padded][part.inner], grid[part.core])
        sides = zip(part.core, part.padded, (height, width), strict=True)
        for core, padded, size in sides:
            assert core.start % multiple == padded.start % multiple == 0
            assert padded.start == 0 or core.start - padded.start >= halo
            assert padded.stop == size or padded.stop - core.stop >= halo
            assert core.stop - core.start <= -(-tile // multiple) * multiple
    assert (count == 1).all()
