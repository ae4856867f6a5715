"""Tests of hostile ``.sprd`` files: thin sides, huge grids, and files longer than they can be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attack_doors as doors
from conftest import photo
from sprdiff.codec import Codec
from sprdiff.errors import BitstreamError, ImageError, PluginError
from sprdiff.fileinfo import read_sprd
from sprdiff.format.container import MAX_CHANNELS, MAX_SYMBOLS, STRIDES, Header, pack_file, read_file
from sprdiff.limits import above
from sprdiff.loading import stride_of
from sprdiff.pillow import register_sprdiff_opener
from sprdiff.runtime.weights import default_folder


def attack(name: str) -> bytes:
    return (doors.ATTACKS / name).read_bytes()


@pytest.mark.parametrize(
    ("width", "height", "limit", "refused"),
    [
        (1, 1, 1, False),
        (30, 20, 600, False),
        (30, 20, 599, True),
        (1000, 1000, 10**6, False),
        (64, 64, 4096, False),
        (1, 1_000_000, 10**6, True),
        (1_000_000, 1, 63_999_999, True),
        (1_000_000, 1, 64_000_000, False),
        (65, 64, 4159, True),
    ],
)
def test_thin_sides_count_in_full(width: int, height: int, limit: int, refused: bool) -> None:
    assert above(width, height, limit) is refused


def test_the_padded_grid_is_limited_both_ways() -> None:
    data = attack("sprd/thin.sprd")
    codec = Codec(max_pixels=10**6)
    with pytest.raises(
        BitstreamError, match="1 x 1000000 pixels, which count as 64 x 1000000, above the limit"
    ):
        codec.decode(data)
    with pytest.raises(ImageError, match="which count as 20000 x 64"):
        codec.encode(np.zeros((1, 20_000, 3), np.uint8))
    with pytest.raises(Image.DecompressionBombError, match="which count as"):
        register_sprdiff_opener(max_pixels=10**6)
        try:
            Image.open(io.BytesIO(data))
        finally:
            register_sprdiff_opener()


def test_a_file_is_read_as_far_as_its_header_allows() -> None:
    codec = doors.codec()
    data = codec.encode(photo(40, 50), quality=100)
    assert read_file(io.BytesIO(data)) == data
    header = Header(1, 1, 0, 0, False, 1, b"ab")
    most = header.most_bytes()
    longest = pack_file(header, bytes(most - 12), b"ab" * 16)
    assert len(longest) == most and read_file(io.BytesIO(longest)) == longest

    class Endless(io.BytesIO):
        given = 0

        def read(self, size: int | None = -1) -> bytes:
            part = longest[: size or 0] if not self.given else bytes(size or 0)
            self.given += len(part)
            return part

    stream = Endless()
    with pytest.raises(BitstreamError, match="longer than 14144 bytes"):
        read_file(stream)
    assert stream.given <= most + 1


def test_weights_at_hand_bound_a_file_by_their_stride(tmp_path: Path) -> None:
    header = Header(64, 64, 0, 0, False, 1, b"ab")
    assert [header.most_bytes(stride) for stride in (8, 32, 64)] == [64 + n * 14080 for n in (64, 4, 1)]
    path = tmp_path / "a.sprd"
    path.write_bytes(pack_file(header, bytes(header.most_bytes(32)), b"ab" * 16))
    assert len(read_sprd(path)) > header.most_bytes(32)
    for stride in (stride_of(None), stride_of(default_folder())):
        with pytest.raises(BitstreamError, match=f"longer than {header.most_bytes(32)} bytes"):
            read_sprd(path, stride=stride)
    with pytest.raises(PluginError, match="longer than"), Image.open(path) as image:
        image.load()


def test_the_bound_and_the_weights_agree_on_channels() -> None:
    assert MAX_SYMBOLS == 2 * MAX_CHANNELS and min(STRIDES) == STRIDES[0]


def test_any_symbols_fit_into_the_bound() -> None:
    """These latents are the dearest ones, as far from every table as they may be."""
    runtime = doors.codec().runtime
    entropy = runtime.entropy
    luck = np.random.default_rng(0)
    y = (luck.choice([-1, 1], (entropy.y_channels, 2, 2)) * 1e9).astype(np.float32)
    z = (luck.choice([-1, 1], (entropy.z_channels, 1, 1)) * 1e9).astype(np.float32)
    header = Header(64, 64, 255, 0, False, 1, runtime.weights_hash[:2])
    data = pack_file(header, entropy.encode(y, z, 255).stream, runtime.weights_hash)
    assert len(data) < header.most_bytes(entropy.stride) / 3
    assert doors.codec().decode(data, realism=0).size == (64, 64)
