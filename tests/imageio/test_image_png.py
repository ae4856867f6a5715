"""Tests of PNG: text above Pillow's limits, damaged chunks, and transparent colours of every depth."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from conftest import photo
from image_helpers import Chunk, apart, damaged_chunk, encode_curve, png, ramp
from sprdiff.errors import ImageError
from sprdiff.imageio import png as image_png
from sprdiff.imageio.open import open_rgb
from sprdiff.imageio.png import MAX_PROFILE, Parts
from sprdiff.imageio.primaries import P3, SRGB, SRGB_CURVE, matrix_profile

PHOTO = photo(48, 64)
LONG = b"A" * (2 * 2**20)
TOO_MUCH = "text above the limits"
PROFILE = matrix_profile(SRGB, (1.0,))


def itxt(text: bytes, *, packed: bool, key: bytes = b"k") -> Chunk:
    return b"iTXt", key + (b"\0\1\0\0\0" + zlib.compress(text) if packed else b"\0\0\0\0\0" + text)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "much"])
def test_text_above_the_limits_is_dropped_and_the_pixels_stay(kind: str, place: str) -> None:
    chunks = {
        "zTXt": [(b"zTXt", b"k\0\0" + zlib.compress(LONG))],
        "iTXt": [itxt(LONG, packed=True)],
        "much": [(b"tEXt", b"k%d\0" % i + LONG * 3) for i in range(12)],
    }[kind]
    data = png(PHOTO, *chunks) if place == "before" else png(PHOTO, after=chunks)
    picture = open_rgb(data)
    assert np.array_equal(picture.pixels, PHOTO)
    assert picture.dropped == (TOO_MUCH,) and not picture.damage
    assert np.array_equal(open_rgb(data, strict=True).pixels, PHOTO)


def test_text_within_the_limits_stays() -> None:
    """The text may say how the picture is turned."""
    turned = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    for packed, filling in ((True, b""), (False, b" " * 2**21)):
        data = png(PHOTO, itxt(turned + filling, packed=packed, key=b"XML:com.adobe.xmp"))
        picture = open_rgb(data)
        assert np.array_equal(picture.pixels, np.rot90(PHOTO, -1)) and picture.dropped == ()


@pytest.mark.parametrize(
    "kind", ["tEXt", "zTXt", "iTXt", "tIME", "gAMA", "cHRM", "pHYs", "eXIf", "iCCP", "prVt"]
)
def test_a_damaged_chunk_that_is_not_needed_is_dropped(kind: str) -> None:
    content = {
        "tEXt": b"k\0hello",
        "zTXt": b"k\0\0" + zlib.compress(b"hello"),
        "iTXt": itxt(b"hello", packed=False)[1],
        "gAMA": struct.pack(">I", 100000),
        "cHRM": struct.pack(">8I", *range(8)),
        "iCCP": b"x\0\0" + zlib.compress(PROFILE),
    }.get(kind, bytes(9))
    data = damaged_chunk(png(PHOTO, (kind.encode(), content)), kind.encode())
    picture = open_rgb(data)
    assert np.array_equal(picture.pixels, PHOTO)
    assert picture.dropped == (f"damaged chunk {kind}",)
    assert picture.damage == f"bad checksum of a chunk {kind}"
    with pytest.raises(ImageError, match=f"is damaged: bad checksum of a chunk {kind}"):
        open_rgb(data, strict=True)


@pytest.mark.parametrize(
    "wrong",
    [
        (b"gAMA", b"\0"),
        (b"cHRM", b"\0"),
        (b"sRGB", b""),
        (b"pHYs", b"\0"),
        (b"tRNS", b"\0"),
        (b"iCCP", b""),
        (b"iCCP", b"x\0\5abc"),
        (b"zTXt", b"k\0\5abc"),
    ],
    ids=str,
)
def test_a_chunk_that_is_too_short_or_packed_in_no_known_way_is_dropped(wrong: Chunk) -> None:
    picture = open_rgb(png(PHOTO, wrong))
    assert np.array_equal(picture.pixels, PHOTO)
    assert picture.dropped == (f"damaged chunk {wrong[0].decode()}",)


def test_damaged_pixel_data_are_told() -> None:
    data = damaged_chunk(png(PHOTO), b"IDAT")
    picture = open_rgb(data)
    assert picture.damage == "bad checksum of a chunk IDAT"
    assert "damaged, but read: bad checksum of a chunk IDAT" in picture.warning
    with pytest.raises(ImageError, match="IDAT"):
        open_rgb(data, strict=True)
    assert not open_rgb(png(PHOTO)).damage


def test_a_large_profile_is_applied_and_one_beyond_measure_is_dropped() -> None:
    large = PROFILE + bytes(2**21)
    packed = zlib.compress(large)
    picture = open_rgb(png((ramp(3) * 255).round(), (b"iCCP", b"x\0\0" + packed)))
    assert picture.dropped == ()
    assert apart(picture.pixels, encode_curve((ramp(3) * 255).round() / 255) * 255) <= 1
    packed = zlib.compress(PROFILE + bytes(MAX_PROFILE))
    picture = open_rgb(png(PHOTO, (b"iCCP", b"x\0\0" + packed)))
    assert np.array_equal(picture.pixels, PHOTO) and picture.dropped == ("ICC profile above the limits",)


def test_packed_text_is_unpacked_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand texts of a kilobyte unpack to a gigabyte; the first ones already show that it is too
    much."""
    packed = b"k\0\0" + zlib.compress(LONG)
    unpacked = 0
    inflate = image_png._inflate

    def counted(data: bytes, most: int) -> Any:
        nonlocal unpacked
        unpacked += (found := len(inflate(data, most)))
        return bytes(found)

    monkeypatch.setattr("sprdiff.imageio.png._inflate", counted)
    assert open_rgb(png(PHOTO, *[(b"zTXt", packed)] * 1000)).dropped == (TOO_MUCH,)
    assert unpacked <= 3 * PngImagePlugin.MAX_TEXT_MEMORY


def test_files_that_end_early() -> None:
    whole = png(PHOTO)
    assert np.array_equal(open_rgb(whole[:-12]).pixels, PHOTO)  # without its last chunk
    for cut in (20, 33, 40, len(whole) // 2):
        with pytest.raises(ImageError):
            open_rgb(whole[:cut])


def test_parts_of_a_file_are_a_file() -> None:
    parts = Parts(io.BytesIO(bytes(range(100))), [(10, 20), (20, 20), (50, 55), (99, 100)])
    want = bytes([*range(10, 20), *range(50, 55), 99])
    stream = io.BufferedReader(parts)
    assert stream.read() == want
    assert stream.seek(-3, io.SEEK_END) == len(want) - 3 and stream.read(2) == want[-3:-1]
    assert stream.seek(8) == 8 and stream.read(4) == want[8:12] and stream.tell() == 12
    assert stream.seek(1000) == 1000 and stream.read() == b""


# ---------------------------------------------------------------------------- transparent colours


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_shade_of_grey(depth: int) -> None:
    top = 2**depth - 1
    values = (np.arange(64)[None] * np.ones((3, 1)) * top / 63).round().astype(np.int64)
    key = int(values[0, 25])
    picture = open_rgb(png(values, (b"tRNS", struct.pack(">H", key)), depth=depth), background="red")
    clear = values == key
    assert clear.any() and not clear.all()
    assert (picture.pixels[clear] == (255, 0, 0)).all()
    assert apart(picture.pixels[~clear], np.repeat(values[~clear][:, None] * 255 / top, 3, 1)) <= 1
    assert "alpha" in picture.dropped


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour(depth: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**depth, (12, 20, 3))
    key = values[3, 4].copy()
    values[5, :7] = key
    near = key ^ 1  # of 16 bits the high bytes are the same
    values[6, :7] = near
    data = png(values, (b"tRNS", struct.pack(">3H", *key)), depth=depth)
    picture = open_rgb(data, background="#010203")
    clear = (values == key).all(-1)
    assert clear[5, :7].all() and not clear[6].any()
    assert (picture.pixels[clear] == (1, 2, 3)).all()
    assert apart(picture.pixels[~clear], values[~clear] * 255 / (2**depth - 1)) <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_converted_with_all_of_them(channels: int) -> None:
    """Linear light in 8 bits would lose the dark, because its first step is a twentieth of the way to
    white."""
    shades = ramp(4) ** 3
    if channels in (2, 4):
        shades[..., channels - 1] = 1
    stored = (shades[..., :channels] * 65535).round()
    data = png(
        stored if channels > 1 else stored[..., 0], (b"iCCP", b"x\0\0" + zlib.compress(PROFILE)), depth=16
    )
    picture = open_rgb(data)
    colour = stored[..., :3] if channels > 2 else np.repeat(stored[..., :1], 3, 2)
    assert apart(picture.pixels, encode_curve(colour / 65535) * 255) <= 1.5
    assert picture.dropped == ("bit depth 16",)


def test_a_profile_of_an_open_image_and_of_its_file_agree() -> None:
    stored = (ramp(3) * 65535).round()
    data = png(stored, (b"iCCP", b"x\0\0" + zlib.compress(matrix_profile(P3, SRGB_CURVE))), depth=16)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(open_rgb(image).pixels, open_rgb(data).pixels)
        image.load()
        assert apart(open_rgb(image).pixels, open_rgb(data).pixels) <= 6  # eight bits of each sample are left


def test_an_open_image_keeps_its_transparent_shade() -> None:
    values = (np.arange(64)[None] % 4).repeat(3, 0)
    data = png(values, (b"tRNS", struct.pack(">H", 1)), depth=2)
    with Image.open(io.BytesIO(data)) as image:
        before = dict(image.info)
        assert np.array_equal(
            open_rgb(image, background="red").pixels, open_rgb(data, background="red").pixels
        )
        assert image.info == before
