"""Tests of TIFF: the page that is the picture, and numbers that Pillow reads wrong, which are converted
exactly or refused."""

from __future__ import annotations

import io
import struct
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import photo
from image_helpers import apart, encode_curve, ramp, saved, tiff, tiff_pages
from sprdiff.errors import ImageError, PluginError
from sprdiff.imageio.open import open_rgb

PHOTO = photo(48, 64)
SMALL = photo(12, 16, 5)
REDUCED, MASK = 1, 4


# ---------------------------------------------------------------------------- pages


@pytest.mark.parametrize("big", [False, True])
def test_a_picture_below_a_thumbnail(big: bool) -> None:
    """In DNG and NEF the first page is a reduced copy, and the picture lies below it."""
    data = tiff_pages(
        (SMALL, {"subfiletype": REDUCED, "subifds": 2}),
        (photo(24, 32, 2), {"subfiletype": REDUCED}),
        (PHOTO, {"subfiletype": 0}),
        big=big,
    )
    picture = open_rgb(data)
    assert np.array_equal(picture.pixels, PHOTO)
    assert picture.dropped == ()


@pytest.mark.parametrize("flag", [{"subfiletype": REDUCED}, {"extratags": [(255, 3, 1, 2, True)]}])
def test_a_thumbnail_page_before_the_picture(flag: dict[str, Any]) -> None:
    picture = open_rgb(tiff_pages((SMALL, flag), (PHOTO, {}), (photo(48, 64, 7), {})))
    assert np.array_equal(picture.pixels, PHOTO)
    assert picture.dropped == ("1 further frame",)


def test_a_mask_before_the_picture() -> None:
    mask = np.ones((48, 64), bool)
    assert np.array_equal(
        open_rgb(tiff_pages((mask, {"subfiletype": MASK, "photometric": 4}), (PHOTO, {}))).pixels, PHOTO
    )


def test_the_turn_of_the_first_page_holds_for_the_picture_below_it() -> None:
    turned = [(274, 3, 1, 6, True)]
    data = tiff_pages((SMALL, {"subfiletype": REDUCED, "subifds": 1, "extratags": turned}), (PHOTO, {}))
    assert np.array_equal(open_rgb(data).pixels, np.rot90(PHOTO, -1))
    data = tiff_pages((SMALL, {"subfiletype": REDUCED, "subifds": 1}), (PHOTO, {"extratags": turned}))
    assert np.array_equal(open_rgb(data).pixels, np.rot90(PHOTO, -1))


def test_smaller_copies_after_the_picture_are_no_further_frames() -> None:
    picture = open_rgb(tiff_pages((PHOTO, {}), (SMALL, {"subfiletype": REDUCED})))
    assert np.array_equal(picture.pixels, PHOTO) and picture.dropped == ()


def test_a_single_page_that_says_it_is_a_copy_is_taken() -> None:
    assert np.array_equal(open_rgb(tiff_pages((PHOTO, {"subfiletype": REDUCED}))).pixels, PHOTO)


@pytest.mark.parametrize("photometric", ["cfa", 34892])
def test_raw_data_below_a_thumbnail_are_refused_with_the_reason(photometric: str | int) -> None:
    raw = np.zeros((48, 64) if photometric == "cfa" else (48, 64, 3), np.uint16)
    data = tiff_pages((SMALL, {"subfiletype": REDUCED, "subifds": 1}), (raw, {"photometric": photometric}))
    with pytest.raises(ImageError, match="camera"):
        open_rgb(data)


def test_pages_in_a_circle_and_damaged_pages() -> None:
    data = bytearray(tiff_pages((PHOTO, {}), (photo(48, 64, 7), {})))
    first = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[first : first + 2])[0]
    following = first + 2 + 12 * count
    for offset in (first, 2**31):
        data[following : following + 4] = struct.pack("<I", offset)
        assert np.array_equal(open_rgb(bytes(data)).pixels, PHOTO)


# ---------------------------------------------------------------------------- numbers


def numbers(kind: str, shades: NDArray[np.float64], photometric: str) -> NDArray[Any]:
    """Return shades 0-1 as numbers of a kind: 1 is the largest of them, or the smallest where 0 is white."""
    wanted = np.dtype(kind)
    top = 1.0 if wanted.kind == "f" else float(np.iinfo(wanted).max)
    values = (1 - shades if photometric == "miniswhite" else shades) * top
    return values.astype(wanted) if wanted.kind == "f" else np.rint(values).clip(0, top).astype(wanted)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packing", [None, "zlib", "lzw"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize(
    "kind", ["uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"]
)
def test_numbers_of_grey(kind: str, photometric: str, packing: str | None, order: str) -> None:
    shades = ramp()[..., 0]
    values = numbers(kind, shades, photometric)
    data = tiff(
        values, photometric=photometric, compression=packing, predictor=packing is not None, byteorder=order
    )
    picture = open_rgb(data)
    assert apart(picture.pixels, np.repeat(shades[..., None] * 255, 3, 2)) <= 1.6  # int8 has 128 shades
    assert picture.grey


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("packing", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "int16"])
def test_numbers_of_colours(
    kind: str, tile: tuple[int, int] | None, order: str, packing: str | None, planes: str
) -> None:
    values = numbers(kind, ramp(3), "rgb")
    values = np.moveaxis(values, -1, 0) if planes == "separate" else values
    options: dict[str, Any] = {
        "planarconfig": planes,
        "compression": packing,
        "byteorder": order,
        "tile": tile,
    }
    picture = open_rgb(tiff(values, photometric="rgb", **options))
    assert apart(picture.pixels, ramp(3) * 255) <= 1
    assert ("bit depth 16" in picture.dropped) is kind.endswith("16")


def test_floating_colours_are_linear_light() -> None:
    picture = open_rgb(tiff(ramp(3).astype(np.float32), photometric="rgb"))
    assert apart(picture.pixels, encode_curve(ramp(3)) * 255) <= 1
    brighter = open_rgb(tiff((ramp(3) * 4).astype(np.float32), photometric="rgb"))
    assert apart(brighter.pixels, encode_curve(np.minimum(ramp(3) * 4, 1)) * 255) <= 1


@pytest.mark.parametrize("kind", ["int8", "int16", "int32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_below_zero_are_refused(kind: str, channels: int) -> None:
    values = np.full((8, 8, channels), -3, kind)
    with pytest.raises(ImageError, match="below zero"):
        open_rgb(
            tiff(
                values if channels == 3 else values[..., 0],
                photometric="rgb" if channels == 3 else "minisblack",
            )
        )


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("packing", [None, "zlib"])
@pytest.mark.parametrize("extra", ["assocalpha", "unassalpha", "unspecified"])
def test_a_fourth_sample(extra: str, packing: str | None, planes: str, kind: str) -> None:
    shades, alpha = ramp(3), 0.25 + 0.75 * ramp(4)[..., 3:]
    stored = shades * alpha if extra == "assocalpha" else shades
    values = numbers(kind, np.concatenate([stored, alpha], 2), "rgb")
    values = np.moveaxis(values, -1, 0) if planes == "separate" else values
    data = tiff(values, photometric="rgb", planarconfig=planes, compression=packing, extrasamples=[extra])
    want = shades if extra == "unspecified" else shades * alpha + 1 - alpha
    assert apart(open_rgb(data).pixels, want * 255) <= 3  # Pillow divides by alpha in 8 bits


def test_numbers_read_as_they_are_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that Pillow opens needs no further package."""
    data = [
        tiff(numbers(kind, ramp()[..., 0], photometric), photometric=photometric, byteorder=order)
        for kind, photometric, order in [
            ("uint16", "miniswhite", "<"),
            ("uint32", "minisblack", "<"),
            ("int8", "minisblack", "<"),
            ("int16", "minisblack", ">"),
            ("float32", "miniswhite", ">"),
        ]
    ]
    deep = tiff(
        np.moveaxis(numbers("uint16", ramp(3), "rgb"), -1, 0), photometric="rgb", planarconfig="separate"
    )
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for one in data:
        assert apart(open_rgb(one).pixels[..., 0], ramp()[..., 0] * 255) <= 1.6
    assert apart(open_rgb(deep).pixels, ramp(3) * 255) <= 1


# ---------------------------------------------------------------------------- kinds that Pillow lacks


def test_what_pillow_lacks_is_named_and_the_extra_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        "float 16-bit grey": tiff(ramp()[..., 0].astype(np.float16), photometric="minisblack"),
        "float 32-bit RGB": tiff(ramp(3).astype(np.float32), photometric="rgb"),
        "8-bit RGB, compression LERC": tiff(PHOTO, photometric="rgb", compression="lerc"),
        "8-bit RGB, compression JPEG XL": tiff(PHOTO, photometric="rgb", compression="jpegxl"),
        "8-bit RGB, compression JPEG 2000": tiff(PHOTO, photometric="rgb", compression="jpeg2000"),
    }
    for kind, data in cases.items():
        assert open_rgb(data).pixels.shape[2] == 3
        if "compression LERC" in kind or "JPEG XL" in kind:
            assert np.array_equal(open_rgb(data).pixels, PHOTO)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for kind, data in cases.items():
        with pytest.raises(ImageError, match="is a TIFF file of a kind that is not supported") as caught:
            open_rgb(data)
        assert f"({kind})" in str(caught.value) and "pip install 'sprdiff[tiff]'" in str(caught.value)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("packing", ["webp", "zstd", "lzma"])
def test_what_some_builds_of_pillow_lack_is_read_without_a_word(
    packing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """There libtiff itself writes to standard error."""
    arguments = {"level": 100, "lossless": True} if packing == "webp" else {}
    data = tiff(PHOTO, photometric="rgb", compression=packing, compressionargs=arguments)
    assert np.array_equal(open_rgb(data).pixels, PHOTO)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("values", [np.zeros((8, 8), np.complex64), np.zeros((8, 8), np.uint16)])
def test_what_nothing_reads_is_no_damage(values: NDArray[Any]) -> None:
    options: dict[str, Any] = {"photometric": "minisblack"}
    if values.dtype == np.uint16:
        options = {"photometric": "palette", "colormap": np.zeros((3, 65536), np.uint16)}
    with pytest.raises(ImageError, match="is a TIFF file of a kind that is not supported"):
        open_rgb(tiff(values, **options))


def test_the_limit_on_pixels_holds_for_the_extra() -> None:
    with pytest.raises(ImageError, match="50 x 40 pixels, above the limit of 1999"):
        open_rgb(tiff(ramp(3).astype(np.float32), photometric="rgb"), max_pixels=1999)


def test_a_profile_of_a_page_that_the_extra_reads_is_applied() -> None:
    from sprdiff.imageio.primaries import SRGB, matrix_profile

    profile = matrix_profile(SRGB, (1.0,))
    tag = [(34675, 7, len(profile), profile, True)]
    data = tiff(numbers("uint32", ramp(3), "rgb"), photometric="rgb", extratags=tag)
    assert apart(open_rgb(data).pixels, encode_curve(ramp(3)) * 255) <= 1


# ---------------------------------------------------------------------------- images that a program has
# opened


def test_an_open_image_is_put_right_before_it_is_decoded() -> None:
    data = tiff(
        np.moveaxis(numbers("uint16", ramp(3), "rgb"), -1, 0), photometric="rgb", planarconfig="separate"
    )
    with Image.open(io.BytesIO(data)) as image:
        assert apart(open_rgb(image).pixels, ramp(3) * 255) <= 1


def test_an_open_image_that_was_decoded_wrong_is_refused() -> None:
    import sprdiff.pillow

    deep = tiff(
        np.moveaxis(numbers("uint16", ramp(3), "rgb"), -1, 0), photometric="rgb", planarconfig="separate"
    )
    packed = tiff(
        numbers("float32", ramp()[..., 0], ""), photometric="minisblack", byteorder=">", compression="zlib"
    )
    for data in (deep, packed):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            with pytest.raises(ImageError, match="Pillow reads wrong"):
                open_rgb(image)
            with pytest.raises(PluginError, match="Pillow reads wrong"):
                image.save(io.BytesIO(), sprdiff.pillow.FORMAT)


def test_every_page_of_an_open_image_can_be_taken() -> None:
    other = photo(48, 64, 7)
    with Image.open(io.BytesIO(tiff_pages((PHOTO, {}), (other, {})))) as image:
        image.seek(1)
        assert np.array_equal(open_rgb(image).pixels, other)


def test_plain_files_are_what_they_were() -> None:
    for mode in ("1", "L", "P", "RGB", "CMYK", "LA", "RGBA"):
        image = Image.fromarray(PHOTO).convert(mode)
        assert np.array_equal(open_rgb(saved(image, "TIFF")).pixels, open_rgb(image).pixels), mode
