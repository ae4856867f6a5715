"""Tests of files that Pillow alone does not open: a package reads them if it is there, and otherwise one
clear line names them."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import photo
from image_helpers import apart, muted, saved, tiff_pages, to_srgb
from sprdiff.batch.recode import Encode
from sprdiff.errors import ImageError
from sprdiff.imageio.boxes import boxes, describe_heif, read_jxl_head, top_box
from sprdiff.imageio.open import open_rgb
from sprdiff.imageio.primaries import P3, SRGB_CURVE, matrix_profile

PHOTO = photo(48, 64)


def heic(pixels: NDArray[Any] = PHOTO, **options: Any) -> bytes:
    import pillow_heif

    stream = io.BytesIO()
    made = pillow_heif.from_pillow(Image.fromarray(pixels))
    made.info.update(options)
    made.save(stream, quality=-1, chroma=444, matrix_coefficients=0)
    return stream.getvalue()


def jxl(pixels: NDArray[Any] = PHOTO, **options: Any) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpegxl_encode(pixels, lossless=True, **options))


# ---------------------------------------------------------------------------- HEIC


def test_a_phone_photograph_is_read(tmp_path: Path) -> None:
    data = heic()
    path = tmp_path / "a.heic"
    path.write_bytes(data)
    for source in (data, path, io.BytesIO(data)):
        assert apart(open_rgb(source).pixels, PHOTO) <= 2
    assert Encode(quality=10).make(data).width == 64


def test_without_the_package_a_phone_photograph_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"is a HEIC picture, which needs pillow_heif: pip install 'sprdiff\[heif\]'"
    ):
        open_rgb(data)


def test_the_colour_of_a_phone_photograph() -> None:
    shades = (muted() * 255).round().astype(np.uint8)
    stored = open_rgb(heic(shades)).pixels
    profile = heic(shades, icc_profile=matrix_profile(P3, SRGB_CURVE), icc_profile_type="prof")
    assert apart(open_rgb(profile).pixels, to_srgb(stored / 255, "p3")) <= 2
    data = heic(shades)
    at = data.index(b"nclx") + 4
    codes = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert apart(open_rgb(codes).pixels, to_srgb(stored / 255, "p3")) <= 2
    assert "HDR transfer curve PQ" in open_rgb(data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :]).dropped


def test_a_phone_photograph_is_turned_once() -> None:
    """The file says it twice, in its box `irot` and in EXIF."""
    from pillow_heif import as_plugin

    exif = Image.Exif()
    exif[0x0112] = 6
    stream, image = io.BytesIO(), Image.fromarray(PHOTO)
    # As `save` does once the format is registered, which is for the whole process.
    image.encoderinfo = {"quality": -1, "chroma": 444, "matrix_coefficients": 0, "exif": exif.tobytes()}
    as_plugin._save_heif(image, stream, "")
    assert b"irot" in stream.getvalue()
    assert apart(open_rgb(stream.getvalue()).pixels, np.rot90(PHOTO, -1)) <= 2


def test_damaged_phone_photographs() -> None:
    data = heic()
    for cut in (12, 40, 200, len(data) - 300):
        with pytest.raises(ImageError) as caught:
            open_rgb(data[:cut])
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="above the limit of 100"):
        open_rgb(data, max_pixels=100)


def test_nothing_is_registered_with_pillow() -> None:
    script = f"""
import io, sys
sys.path[:0] = {sys.path!r}
from test_image_kinds import heic, jxl
from PIL import Image
from sprdiff.imageio.open import open_rgb
before = None
for data in (heic(), jxl()):
    open_rgb(data)
Image.init()
assert not {{"HEIF", "JXL"}} & set(Image.OPEN), Image.ID
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


# ---------------------------------------------------------------------------- JPEG XL


def test_jpeg_xl_is_read() -> None:
    assert np.array_equal(open_rgb(jxl()).pixels, PHOTO)
    assert open_rgb(jxl(PHOTO[..., 0])).grey
    assert "bit depth 16" in open_rgb(jxl(PHOTO.astype(np.uint16) * 257)).dropped


def test_jpeg_xl_is_measured_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-in decodes a picture when it opens it."""
    open_rgb(jxl())
    monkeypatch.setattr("pillow_jxl.JpegXLImagePlugin.JXLImageFile", None)
    with pytest.raises(ImageError, match="64 x 48 pixels, above the limit of 3071"):
        open_rgb(jxl(), max_pixels=3071)


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (48, 64), (64, 48), (300, 400), (17, 9), (1, 1), (600, 1), (256, 256)]
)
@pytest.mark.parametrize("boxed", [False, True])
def test_the_head_of_jpeg_xl(height: int, width: int, boxed: bool) -> None:
    head = read_jxl_head(io.BytesIO(jxl(photo(height, width), usecontainer=boxed)))
    assert (head.width, head.height, head.depth) == (width, height, 8)


def test_without_the_package_jpeg_xl_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jxl()
    monkeypatch.setitem(sys.modules, "pillow_jxl.JpegXLImagePlugin", None)
    with pytest.raises(
        ImageError, match=r"is a JPEG XL picture, which needs pillow_jxl: pip install 'sprdiff\[jxl\]'"
    ):
        open_rgb(data)


def test_damaged_jpeg_xl() -> None:
    for data in (b"\xff\x0a", b"\xff\x0a\xff\xff\xff", jxl()[:60], b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 40):
        with pytest.raises(ImageError) as caught:
            open_rgb(data)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------- kinds that nothing reads


def bmp(compression: int, bits: int = 24, header: int = 40) -> bytes:
    info = struct.pack("<IiiHHIIiiII", header, 4, 4, 1, bits, compression, 64, 0, 0, 0, 0).ljust(
        header, b"\0"
    )
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + 64, 0, 0, 14 + len(info)) + info + bytes(64)


@pytest.mark.parametrize(
    "data",
    [bmp(4), bmp(5), bmp(0, bits=64), bmp(3, bits=16, header=40), bmp(9), bmp(0, header=77)],
    ids=["JPEG inside", "PNG inside", "64 bits", "fields", "unknown", "header"],
)
def test_kinds_of_bmp_that_pillow_lacks(data: bytes) -> None:
    with pytest.raises(ImageError, match="of a kind that is not supported: Unsupported BMP"):
        open_rgb(data)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw file (CR3)"),
        (b"FUJIFILMCCD-RAW 0201", "raw file (RAF)"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "raw file (CR2)"),
        (b"v/1\x01" + bytes(40), "OpenEXR"),
        (b"\0\0\0\x18ftypisom\0\0\0\1", "a video"),
        (b"SPR\x10\x01\x50\xc0", "an .sprd file already"),
    ],
)
def test_what_is_no_picture_here_is_named(data: bytes, word: str) -> None:
    with pytest.raises(ImageError, match="that is not supported") as caught:
        open_rgb(data)
    assert word in str(caught.value) and "damaged" not in str(caught.value)


def test_a_head_that_promises_more_than_follows() -> None:
    for data, kind in ((b"\xff\xd8\xff\xe0\0", "JPEG"), (b"\x89PNG\r\n\x1a\n\0\0", "PNG")):
        with pytest.raises(ImageError, match=f"is not an image that can be read: its head says {kind}"):
            open_rgb(data)


# ---------------------------------------------------------------------------- boxes


def test_boxes_that_are_damaged_end_quietly() -> None:
    whole = saved(Image.fromarray(PHOTO), "AVIF")
    assert describe_heif(io.BytesIO(whole)).codes == (1, 13)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = np.frombuffer(whole[:400], np.uint8).copy()
        damaged[rng.integers(0, 400, 4)] = rng.integers(0, 256, 4)
        describe_heif(io.BytesIO(damaged.tobytes()))
    assert list(boxes(b"\0\0\0\x04abcd")) == [] and list(boxes(b"\0\0\0\x20abcd")) == []
    assert top_box(io.BytesIO(b"\0\0\0\0meta" + b"x" * 9), b"meta") == b"x" * 9
    assert top_box(io.BytesIO(b"\0\0\0\x03free"), b"meta") == b""


def test_pages_of_a_large_tiff_file_end() -> None:
    many = tiff_pages(*[(PHOTO[:8, :8], {})] * 30)
    assert open_rgb(many).dropped == ("29 further frames",)
