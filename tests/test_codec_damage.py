"""Tests of bad input to the codec: it ends in a clear error before any large allocation, and never in a
crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import photo
from sprdiff.codec import Codec
from sprdiff.errors import BitstreamError, ImageError, ModelMismatchError, SprdiffError, WeightsError
from sprdiff.format.container import Header, pack_file, parse_file

pytest_plugins = ("weights_fixture",)

PICTURE = photo(256, 384)


def test_pictures_that_cannot_be_coded(nano_weights: Path, tmp_path: Path) -> None:
    codec = Codec(nano_weights, max_pixels=1000)
    for wrong in (PICTURE, PICTURE.astype(float), PICTURE[:5, :5, :2], PICTURE[:0], b"no image", tmp_path):
        with pytest.raises(ImageError):
            codec.encode(wrong)
    with pytest.raises(ImageError, match="above the limit"):
        Codec(nano_weights).encode(np.zeros((1, 2**21, 3), np.uint8))


def test_truncated_files(codec: Codec, data: bytes) -> None:
    for length in range(len(data)):
        if length < 40 or length > len(data) - 3 or length % 50 == 0:
            with pytest.raises(BitstreamError):
                codec.decode(data[:length])
    for trailing in (b"\0", b"\xff", b"more"):
        with pytest.raises(BitstreamError):
            codec.decode(data + trailing)


def test_flipped_bits(codec: Codec, data: bytes) -> None:
    for bit in (*range(8 * 24), *range(8 * 24, 8 * len(data), 101)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((BitstreamError, ModelMismatchError)):
            codec.decode(bytes(damaged))


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=300), st.integers(1, 200), st.integers(1, 200), st.integers(0, 255), st.integers(0, 6)
)
def test_any_stream_with_a_true_check_decodes_safely(
    codec: Codec, stream: bytes, width: int, height: int, level: int, scale: int
) -> None:
    weights_hash = codec.runtime.weights_hash
    header = Header(width, height, level, scale, False, 1, weights_hash[:2])
    try:
        assert codec.decode(pack_file(header, stream, weights_hash)).size == (width, height)
    except SprdiffError as error:
        assert isinstance(error, BitstreamError)


def test_absurd_sizes_are_refused_before_anything_is_loaded() -> None:
    nothing = Codec("no such folder")
    for width, height in ((2**21 - 1, 2**21 - 1), (2**21 - 1, 129), (16385, 16384)):
        with pytest.raises(BitstreamError, match="above the limit"):
            nothing.decode(pack_file(Header(width, height, 0, 6, False, 1, b"ab"), b"", b"ab" * 16))
    with pytest.raises(BitstreamError, match="above 2097151"):
        nothing.decode(b"SPR\x20\x01ab\x00\xff\xff\xff\xff\x07\x01\x00\x00")
    with pytest.raises(WeightsError):
        nothing.decode(pack_file(Header(16384, 16384, 0, 6, False, 1, b"ab"), b"", b"ab" * 16))


def test_the_limit_on_pixels_is_an_option(nano_weights: Path, data: bytes) -> None:
    assert Codec(nano_weights, max_pixels=256 * 384).decode(data).size == (384, 256)
    with pytest.raises(BitstreamError, match="above the limit"):
        Codec(nano_weights, max_pixels=256 * 384 - 1).decode(data)


def test_other_weights_are_told_apart(data: bytes, codec: Codec, nano_weights: Path) -> None:
    weights_hash = bytes(reversed(codec.runtime.weights_hash))
    parsed = parse_file(data)
    header = Header(384, 256, parsed.header.level, 0, False, 1, weights_hash[:2])
    tag = codec.runtime.weights_hash[:2].hex()
    with pytest.raises(ModelMismatchError, match=rf"tiny-{weights_hash[:2].hex()}, .*tiny-{tag}"):
        codec.decode(pack_file(header, parsed.stream, weights_hash))
    unknown = Header(384, 256, 0, 0, False, 99, codec.runtime.weights_hash[:2])
    with pytest.raises(ModelMismatchError, match="preset 99"):
        codec.decode(pack_file(unknown, parsed.stream, codec.runtime.weights_hash))
