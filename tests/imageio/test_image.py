"""Tests of opening pictures: every mode and format becomes upright 8-bit sRGB, and anything else gives one
clear line."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from conftest import photo
from sprdiff.errors import ImageError
from sprdiff.imageio.colour import parse_background
from sprdiff.imageio.open import Picture, open_rgb
from sprdiff.imageio.save import to_pil

MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
]
GREY = {"1", "L", "LA", "La", "I", "F", "I;16"}


def make(mode: str, height: int = 20, width: int = 30) -> Image.Image:
    image = Image.fromarray(photo(height, width))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    if mode in ("La", "RGBa"):
        return image.convert("RGBA" if mode == "RGBa" else "LA").convert(mode)
    return image.convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@given(st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 40))
def test_every_mode_and_size(mode: str, height: int, width: int) -> None:
    image = make(mode, height, width)
    picture = open_rgb(image)
    assert picture.pixels.shape == (height, width, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.grey == (mode in GREY)
    if mode not in ("LAB", "La", "RGBa"):
        deep = mode in ("I;16", "I", "F")
        expected = (
            image.convert("L") if deep and mode != "I;16" else make("L", height, width) if deep else image
        )
        want = np.asarray(
            expected.convert("RGBA").convert("RGB") if mode != "CMYK" else expected.convert("RGB")
        )
        assert np.abs(picture.pixels.astype(int) - want).max() <= 1


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "TGA"]
)
def test_formats_paths_bytes_files(kind: str, tmp_path: Path) -> None:
    data = saved(Image.fromarray(photo(33, 17)), kind)
    path = tmp_path / "picture"
    path.write_bytes(data)
    pictures = [open_rgb(path), open_rgb(str(path)), open_rgb(data), open_rgb(io.BytesIO(data))]
    for picture in pictures:
        assert picture.pixels.shape == (33, 17, 3)
        assert np.array_equal(picture.pixels, pictures[0].pixels)
        assert not picture.grey and picture.dropped == ()


def test_a_picture_comes_back_as_it_is() -> None:
    picture = Picture(photo(4, 4), grey=False)
    assert open_rgb(picture) is picture


def test_a_pillow_image_stays_open_and_unchanged() -> None:
    image = make("RGBA")
    before = image.tobytes()
    open_rgb(image)
    assert image.mode == "RGBA" and image.tobytes() == before


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa"])
def test_alpha_is_composited(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 51))
    image = image.convert("LA").convert(mode) if mode == "LA" else image.convert(mode)
    white, red = open_rgb(image), open_rgb(image, background="red")
    assert white.pixels.tolist() == [[[0] * 3, [204] * 3]]
    assert red.pixels.tolist() == [[[0] * 3, [204, 0, 0]]]
    assert white.dropped == ("alpha",)
    assert white.grey == (mode == "LA") and not red.grey


def test_alpha_that_hides_nothing_is_not_mentioned() -> None:
    assert open_rgb(Image.new("RGBA", (3, 3), "blue")).dropped == ()


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1", "I;16"])
def test_transparent_colour(mode: str) -> None:
    image = Image.new("I;16" if mode == "I;16" else "L", (2, 1), 0)
    image.putpixel((1, 0), 65535 if mode == "I;16" else 255)
    image = image.convert(mode) if mode != "I;16" else image
    data = saved(image, transparency=(0, 0, 0) if mode == "RGB" else 0)
    picture = open_rgb(data, background="#808080")
    assert picture.pixels[0, 1].tolist() == [255] * 3
    assert picture.pixels[0, 0].tolist() == [128] * 3
    assert "alpha" in picture.dropped


def test_palette_with_alpha() -> None:
    image = make("P")
    picture = open_rgb(saved(image, transparency=bytes([128] * 256)))
    assert picture.dropped == ("alpha",)
    assert picture.pixels.min() >= 127


def test_16_bit_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    for kind in ("PNG", "TIFF", "PPM"):
        picture = open_rgb(saved(Image.fromarray(ramp), kind))
        assert picture.pixels[0, :, 0].tolist() == list(range(256))
        assert picture.grey and picture.dropped == ("bit depth 16",)


def test_dark_16_bit_stays_dark() -> None:
    picture = open_rgb(saved(Image.fromarray(np.full((3, 3), 200, np.uint16)), "PPM"))
    assert picture.pixels.max() == 1


def test_16_bit_colour_png() -> None:
    rows = np.zeros((2, 3, 3), ">u2")
    rows[0, 0] = 65535, 32896, 257
    data = png(3, 2, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))
    picture = open_rgb(data)
    assert picture.pixels[0, 0].tolist() == [255, 128, 1]
    assert picture.dropped == ("bit depth 16",)


@pytest.mark.parametrize("top, want", [(1.0, [0, 128, 255]), (255.0, [0, 128, 255]), (4e6, [0, 128, 255])])
def test_float_ranges(top: float, want: list[int]) -> None:
    values = np.array([[0, top / 2, top]], np.float32)
    assert open_rgb(Image.fromarray(values)).pixels[0, :, 0].tolist() == want
    assert open_rgb(saved(Image.fromarray(values), "TIFF")).dropped == ("bit depth 32",)


def test_float_without_numbers() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.0, 1.0]], np.float32)
    assert open_rgb(Image.fromarray(values)).pixels[0, :, 0].tolist() == [0, 255, 0, 0, 255]
    assert open_rgb(Image.fromarray(np.full((2, 2), np.nan, np.float32))).pixels.shape == (2, 2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = Image.fromarray(photo(20, 30))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF"):
        picture = open_rgb(saved(stored, kind, exif=exif))
        assert np.array_equal(picture.pixels, np.asarray(upright))
        assert picture.pixels.flags.c_contiguous


def test_damaged_exif_is_ignored() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"junk"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own words about it
            assert open_rgb(saved(make("RGB"), exif=exif)).pixels.shape == (20, 30, 3)


def test_icc_profile_is_converted() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = make("RGB")
    same = open_rgb(saved(image, icc_profile=srgb))
    assert np.abs(same.pixels.astype(int) - np.asarray(image)).max() <= 2
    swapped = bytearray(srgb)  # red and green primaries exchanged: green must look red
    red, green = swapped.index(b"rXYZ"), swapped.index(b"gXYZ")
    swapped[red : red + 4], swapped[green : green + 4] = b"gXYZ", b"rXYZ"
    picture = open_rgb(saved(Image.new("RGB", (4, 4), (0, 255, 0)), icc_profile=bytes(swapped)))
    assert picture.pixels[0, 0, 0] > 240 and picture.pixels[0, 0, 1] < 60
    assert picture.dropped == ()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "I;16"])
def test_unusable_profile_is_dropped_with_a_note(mode: str) -> None:
    image = make(mode)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"not a profile", lab):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        picture = open_rgb(saved(image, kind, icc_profile=profile))
        assert "unusable ICC profile" in picture.dropped
        assert np.array_equal(picture.pixels, open_rgb(image).pixels)


def test_grey_with_an_rgb_profile_stays_grey() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = open_rgb(saved(make("L"), icc_profile=srgb))
    assert picture.grey and picture.dropped == ()
    assert (picture.pixels[..., 0] == picture.pixels[..., 2]).all()


def test_further_frames() -> None:
    frames = [Image.fromarray(photo(8, 8, seed)) for seed in range(4)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        assert open_rgb(saved(frames[0], kind, save_all=True, append_images=frames[1:])).dropped == (
            "3 further frames",
        )
    two = saved(frames[0], "TIFF", save_all=True, append_images=frames[1:2])
    assert open_rgb(two).dropped == ("1 further frame",)
    assert np.array_equal(open_rgb(two).pixels, photo(8, 8, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF"])
def test_damaged_files(kind: str) -> None:
    data = saved(Image.fromarray(photo(64, 64)), kind)
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cut in {0, 1, 10, 16, 30, len(data) // 3, len(data) // 2}:
            with pytest.raises(ImageError) as caught:
                open_rgb(data[:cut])
            assert "\n" not in str(caught.value)
        for _ in range(60):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
            try:  # damage may go unnoticed, but whatever is noticed is an ImageError
                open_rgb(damaged.tobytes(), max_pixels=2**20)
            except ImageError as error:
                assert "\n" not in str(error)


def test_what_is_not_a_picture(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is not a picture")
    cases = {
        "empty.png": "is empty",
        "text.png": "is not an image",
        ".": "is a directory",
        "no.png": "no such file",
    }
    for name, message in cases.items():
        with pytest.raises(ImageError, match=message):
            open_rgb(tmp_path / name)
    for source in (
        b"",
        b"ab",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        Image.new("RGB", (0, 3)),
        "a\0b",
        17,
    ):
        with pytest.raises(ImageError):
            open_rgb(source)  # type: ignore[arg-type]


def test_limit_on_pixels_comes_before_decoding() -> None:
    with pytest.raises(ImageError, match="30 x 20 pixels, above the limit of 599"):
        open_rgb(make("RGB"), max_pixels=599)
    assert open_rgb(make("RGB"), max_pixels=600).pixels.shape == (20, 30, 3)
    with pytest.raises(ImageError, match="above the limit"):
        open_rgb(png(2**31 - 1, 2**31 - 1, 8, 2, b""))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP"])
def test_pillows_own_limit_is_no_limit_here(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [make("RGB"), make("P")] if kind in ("PNG", "TIFF") else [make("RGB")]
    options: list[dict[str, Any]] = [{}, {"compression": "tiff_lzw"}] if kind == "TIFF" else [{}]
    data = [saved(image, kind, **option) for image in images for option in options]
    want = [open_rgb(item).pixels for item in data]
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 100
    )  # 600 pixels: beyond twice the limit, where Pillow refuses
    for item, pixels in zip(data, want, strict=True):
        assert np.array_equal(open_rgb(item).pixels, pixels)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_background_names() -> None:
    assert parse_background("white") == parse_background("#fff") == parse_background((255, 255, 255))
    assert parse_background("#336699ff") == (0x33, 0x66, 0x99)
    for wrong in ("nocolour", "#33669980", "", (1, 2), (0, 0, 256), "rgb(1,2)"):
        with pytest.raises(ImageError, match="not an opaque colour"):
            parse_background(wrong)  # type: ignore[arg-type]


def test_strips_join_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [make(mode, 50, 30) for mode in MODES]
    whole = [open_rgb(image).pixels for image in images]
    monkeypatch.setattr("sprdiff.imageio.colour.STRIP_PIXELS", 200)
    for image, pixels in zip(images, whole, strict=True):
        assert np.array_equal(open_rgb(image).pixels, pixels)


def test_to_pil() -> None:
    pixels = photo(5, 7)
    assert np.array_equal(np.asarray(to_pil(pixels)), pixels)
    grey = np.repeat(pixels[..., :1], 3, -1)
    assert to_pil(grey, True).mode == "L"
    assert np.array_equal(np.asarray(to_pil(grey, True)), grey[..., 0])


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """Write a PNG file by hand, which Pillow would not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
