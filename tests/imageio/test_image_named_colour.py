"""Tests of colours that a file names without an ICC profile, HDR, and depths above 8 bits: they are
converted, or named in one line."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from conftest import photo
from image_helpers import Chunk, apart, muted, png, saved, to_srgb
from sprdiff import cli
from sprdiff.imageio.open import open_rgb
from sprdiff.imageio.primaries import P3, SRGB_CURVE, from_chromaticities, from_codes, matrix_profile

SHADES = (muted() * 255).round()
PLAIN = SHADES.astype(np.uint8)
WHITE = (0.3127, 0.3290)
CHROMATICITIES = {
    "p3": (*WHITE, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    "adobe": (*WHITE, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060),
    "bt2020": (*WHITE, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    "srgb": (*WHITE, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
}


def chrm(space: str) -> Chunk:
    return b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in CHROMATICITIES[space]))


def gama(gamma: float) -> Chunk:
    return b"gAMA", struct.pack(">I", round(gamma * 100000))


def nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """Make an AVIF or HEIC file with other codes in its box `colr`."""
    start = data.index(b"nclx") + 4
    return data[:start] + struct.pack(">HH", primaries, transfer) + data[start + 4 :]


def avif(**options: Any) -> bytes:
    return saved(Image.fromarray(PLAIN), "AVIF", quality=100, subsampling="4:4:4", **options)


# ---------------------------------------------------------------------------- conversions


@pytest.mark.parametrize(
    ("codes", "space", "gamma"),
    [
        ((12, 13), "p3", None),
        ((9, 14), "bt2020", None),
        ((9, 1), "bt2020", None),
        ((12, 8), "p3", 1.0),
        ((1, 8), "srgb", 1.0),
        ((1, 4), "srgb", 2.2),
        ((1, 13), "srgb", None),
        ((1, 1), "srgb", None),
        ((2, 2), "srgb", None),
    ],
)
@pytest.mark.parametrize("kind", ["png", "avif"])
def test_codes_of_cicp(kind: str, codes: tuple[int, int], space: str, gamma: float | None) -> None:
    data = png(SHADES, (b"cICP", bytes([*codes, 0, 1]))) if kind == "png" else nclx(avif(), *codes)
    stored = PLAIN if kind == "png" else open_rgb(avif()).pixels
    picture = open_rgb(data)
    assert apart(picture.pixels, to_srgb(stored / 255, space, gamma)) <= 2
    assert picture.dropped == ()
    if (space, gamma) == ("srgb", None):
        assert np.array_equal(picture.pixels, stored)


@pytest.mark.parametrize(
    ("chunks", "space", "gamma"),
    [
        ([chrm("p3")], "p3", None),
        ([chrm("p3"), gama(0.45455)], "p3", None),
        ([chrm("adobe"), gama(0.45455)], "adobe", 563 / 256),
        ([chrm("bt2020"), gama(1.0)], "bt2020", 1.0),
        ([gama(1.0)], "srgb", 1.0),
        ([gama(0.55556)], "srgb", 1.8),
        ([gama(0.45455)], "srgb", None),
        ([gama(0.45455), chrm("srgb")], "srgb", None),
        ([gama(1.0), (b"sRGB", b"\0")], "srgb", None),
        ([gama(1.0), (b"cICP", b"\x0c\x0d\0\1")], "p3", None),
    ],
    ids=str,
)
def test_gamma_and_chromaticities_of_png(chunks: list[Chunk], space: str, gamma: float | None) -> None:
    picture = open_rgb(png(SHADES, *chunks))
    assert apart(picture.pixels, to_srgb(PLAIN / 255, space, gamma)) <= 2
    if (space, gamma) == ("srgb", None):
        assert np.array_equal(picture.pixels, PLAIN)
    assert picture.dropped == ()


def test_linear_light_of_16_bits_keeps_its_dark() -> None:
    values = (muted() ** 3 * 65535).round()
    picture = open_rgb(png(values, gama(1.0), depth=16))
    assert apart(picture.pixels, to_srgb(values / 65535, "srgb", 1.0)) <= 1.5
    grey = open_rgb(png(values[..., 0], gama(1.0), depth=16))
    assert apart(grey.pixels[..., 0], to_srgb(values / 65535, "srgb", 1.0)[..., 0]) <= 1.5 and grey.grey


def test_a_profile_goes_before_gamma_and_codes_before_a_profile() -> None:
    import zlib

    profile = (b"iCCP", b"x\0\0" + zlib.compress(matrix_profile(P3, SRGB_CURVE)))
    by_profile = open_rgb(png(SHADES, profile)).pixels
    assert np.array_equal(open_rgb(png(SHADES, profile, gama(1.0))).pixels, by_profile)
    assert np.array_equal(open_rgb(png(SHADES, (b"cICP", b"\1\x0d\0\1"), profile)).pixels, PLAIN)
    p3 = matrix_profile(P3, SRGB_CURVE)
    assert np.array_equal(open_rgb(avif(icc_profile=p3)).pixels, open_rgb(nclx(avif(), 12, 13)).pixels)


@pytest.mark.parametrize(
    "values", [(0,) * 8, (1,) * 8, (*WHITE, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3), (*WHITE, *([9e9] * 6))]
)
def test_chromaticities_that_make_no_sense_are_dropped_with_a_note(values: tuple[float, ...]) -> None:
    named = from_chromaticities(values, None)
    assert named.profile is None and named.doubt == "unusable colour description"
    assert from_chromaticities(None, 0.0).doubt and from_codes(99, 13).doubt == "unknown colour space 99/13"
    picture = open_rgb(png(SHADES, (b"cHRM", bytes(32))))
    assert np.array_equal(picture.pixels, PLAIN) and picture.dropped == ("unusable colour description",)


def test_profiles_that_are_made_here_are_sound() -> None:
    """The profile of sRGB that is made here and LittleCMS's own agree to a step."""
    made = ImageCms.ImageCmsProfile(
        io.BytesIO(matrix_profile(((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), WHITE), SRGB_CURVE))
    )
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    both = ImageCms.buildTransform(made, theirs, "RGB", "RGB")
    image = Image.fromarray(photo(48, 64))
    assert apart(np.asarray(ImageCms.applyTransform(image, both)), np.asarray(image)) <= 1


@pytest.mark.parametrize("way", ["ColorSpace", "Interoperability"])
def test_adobe_rgb_of_a_camera_without_a_profile(way: str) -> None:
    exif = Image.Exif()
    detail = exif.get_ifd(0x8769)
    detail[0xA001] = 2 if way == "ColorSpace" else 0xFFFF
    if way == "Interoperability":
        detail[0xA005] = {1: "R03"}
    data = saved(Image.fromarray(PLAIN), "JPEG", quality=100, subsampling=0, exif=exif)
    stored = open_rgb(saved(Image.fromarray(PLAIN), "JPEG", quality=100, subsampling=0)).pixels
    assert apart(open_rgb(data).pixels, to_srgb(stored / 255, "adobe", 563 / 256)) <= 2
    detail[0xA001] = 1
    data = saved(Image.fromarray(PLAIN), "JPEG", quality=100, subsampling=0, exif=exif)
    assert np.array_equal(open_rgb(data).pixels, stored)


def test_a_profile_in_jpeg_2000_is_applied() -> None:
    """Pillow does not read such a profile, so a box `colr` of method 2 is put in by hand."""
    data = saved(Image.fromarray(PLAIN), "JPEG2000", irreversible=False)
    profile = matrix_profile(P3, SRGB_CURVE)
    body = b"colr" + bytes([2, 0, 0]) + profile
    box = struct.pack(">I", len(body) + 4) + body
    at = data.index(b"colr") - 4
    (old,) = struct.unpack(">I", data[at : at + 4])
    head = data.index(b"jp2h") - 4
    (size,) = struct.unpack(">I", data[head : head + 4])
    changed = (
        data[:head] + struct.pack(">I", size - old + len(box)) + data[head + 4 : at] + box + data[at + old :]
    )
    assert apart(open_rgb(changed).pixels, to_srgb(PLAIN / 255, "p3")) <= 2
    assert np.array_equal(open_rgb(data).pixels, PLAIN)


# ---------------------------------------------------------------------------- what is named only


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("kind", ["png", "avif"])
def test_hdr_is_named_and_read_as_if_it_were_not(kind: str, transfer: int, name: str) -> None:
    data = png(SHADES, (b"cICP", bytes([9, transfer, 0, 1]))) if kind == "png" else nclx(avif(), 9, transfer)
    picture = open_rgb(data)
    assert picture.dropped == (f"HDR transfer curve {name}",)
    assert np.array_equal(picture.pixels, PLAIN if kind == "png" else open_rgb(avif()).pixels)


@pytest.mark.parametrize(
    "mark", [b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>', b"urn:iso:std:iso:ts:21496:-1\0"]
)
def test_a_gain_map_is_named(mark: bytes) -> None:
    data = saved(Image.fromarray(PLAIN), "JPEG", quality=90)
    marker = b"\xff\xe1" if mark.startswith(b"http") else b"\xff\xe2"
    changed = data[:2] + marker + struct.pack(">H", len(mark) + 2) + mark + data[2:]
    assert open_rgb(changed).dropped == ("HDR gain map",)
    assert np.array_equal(open_rgb(changed).pixels, open_rgb(data).pixels)


def test_depths_above_8_bits_are_named() -> None:
    import imagecodecs

    deep = photo(48, 64).astype(np.uint16)
    files: dict[int, Any] = {
        10: imagecodecs.avif_encode(deep * 4, bitspersample=10),
        12: imagecodecs.jpeg2k_encode(deep * 16, bitspersample=12, reversible=True),
        16: saved(Image.fromarray(deep[..., 0] * 257), "PNG"),
    }
    for depth, data in files.items():
        assert f"bit depth {depth}" in open_rgb(bytes(data)).dropped


def test_the_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hdr.png").write_bytes(png((muted() * 65535).round(), (b"cICP", b"\x09\x10\0\1"), depth=16))
    assert cli.main(["encode", "hdr.png", "-q", "10"]) == 0
    assert (
        capsys.readouterr().err == "sprdiff: warning: hdr.png: dropped bit depth 16, HDR transfer curve PQ\n"
    )


# ---------------------------------------------------------------------------- through the Pillow plug-in


def test_an_open_image_and_its_file_are_the_same_picture(tmp_path: Path) -> None:
    files = {
        "p3.avif": nclx(avif(), 12, 13),
        "codes.png": png(SHADES, (b"cICP", b"\x0c\x0d\0\1")),
        "gamma.png": png(SHADES, gama(1.0)),
        "p3.png": png(SHADES, chrm("p3")),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(open_rgb(image).pixels, open_rgb(data).pixels)
        with Image.open(tmp_path / name) as image:
            image.load()
            assert np.array_equal(open_rgb(image).pixels, open_rgb(data).pixels), name


def test_saving_through_pillow_converts_the_colour(tmp_path: Path) -> None:
    import sprdiff

    sprdiff.register_sprdiff_opener(threads=1)
    path = tmp_path / "p3.avif"
    path.write_bytes(nclx(avif(), 12, 13))
    with Image.open(path) as image:
        image.save(tmp_path / "out.sprd", quality=30)
    assert (tmp_path / "out.sprd").read_bytes() == sprdiff.encode(path, quality=30)
