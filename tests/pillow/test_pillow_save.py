"""Tests of saving `.sprd` files through Pillow: the targets, every mode, and what a failure leaves behind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

import sprdiff
from conftest import photo
from pillow_helpers import SIZE, options, sprd
from sprdiff import PluginError, register_sprdiff_opener

__all__ = ["options"]  # a fixture
PHOTO = Image.fromarray(photo(64, 96))


def saved(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "SPRDIFF", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "target",
    [
        {},
        {"bpp": 0.5},
        {"max_bytes": 120},
        {"quality": 40},
        {"quality": 40, "scale": 2},
        {"bpp": None, "quality": 40, "max_bytes": None, "scale": None, "background": None},
    ],
    ids=str,
)
def test_targets_are_those_of_encode(target: dict[str, Any], tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "x.sprd", **target)
    stated = {name: value for name, value in target.items() if value is not None}
    assert (tmp_path / "x.sprd").read_bytes() == sprdiff.encode(PHOTO, **stated)


def test_unknown_keywords_are_ignored_as_everywhere_in_pillow() -> None:
    assert saved(PHOTO, quality=40, optimize=True, progressive=True, dpi=(72, 72)) == saved(PHOTO, quality=40)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": 101},
        {"quality": "keep"},
        {"bpp": -1},
        {"max_bytes": 1.5},
        {"scale": 5},
        {"quality": 3, "bpp": 0.1},
    ],
    ids=str,
)
def test_wrong_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        saved(PHOTO, **wrong)


@pytest.mark.parametrize(
    ("mode", "grey"),
    [
        ("1", True),
        ("L", True),
        ("LA", True),
        ("I", True),
        ("I;16", True),
        ("F", True),
        ("P", False),
        ("PA", False),
        ("RGB", False),
        ("RGBA", False),
        ("RGBX", False),
        ("CMYK", False),
        ("YCbCr", False),
        ("HSV", False),
        ("LAB", False),
    ],
)
def test_every_mode(mode: str, grey: bool) -> None:
    image = PHOTO
    if mode == "LAB":
        transform = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = ImageCms.applyTransform(PHOTO, transform) or PHOTO
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257)
    elif mode == "PA":
        image = PHOTO.convert("P").convert("PA")
    else:
        image = PHOTO.convert("L").convert(mode) if grey else PHOTO.convert(mode)
    assert image.mode == mode
    before = image.tobytes()
    back = Image.open(io.BytesIO(saved(image, quality=100)))
    assert (back.size, back.mode) == (SIZE, "L" if grey else "RGB")
    shift = np.asarray(back, np.float64).mean() - np.asarray(PHOTO.convert(back.mode), np.float64).mean()
    assert abs(shift) < 8
    assert image.tobytes() == before and image.mode == mode


def test_transparency_goes_onto_the_background() -> None:
    clear = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    assert np.asarray(Image.open(io.BytesIO(saved(clear)))).mean() > 225
    assert np.asarray(Image.open(io.BytesIO(saved(clear, background="black")))).mean() < 15
    palette = PHOTO.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert saved(palette, quality=40) != saved(PHOTO.convert("P"), quality=40)


def test_pixels_are_saved_as_they_are_and_turned_only_when_the_orientation_is_handed_on() -> None:
    """Pillow's own formats do the same, because an image may have been turned already and still carry its old
    metadata."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stream = io.BytesIO()
    PHOTO.save(stream, "PNG", exif=exif)
    image = Image.open(stream)
    assert image.getexif()[ExifTags.Base.Orientation] == 6
    assert saved(image, quality=40) == saved(PHOTO, quality=40)
    turned = saved(PHOTO.transpose(Image.Transpose.ROTATE_270), quality=40)
    assert saved(image, quality=40, exif=image.getexif()) == turned
    assert saved(image, quality=40, exif=exif.tobytes()) == turned
    assert saved(image, quality=40, exif=b"") == saved(PHOTO, quality=40)


def test_a_colour_profile_is_applied() -> None:
    wide = photo_in_another_space()
    with_profile = saved(wide, quality=40)
    assert with_profile != saved(wide, quality=40, icc_profile=None)
    bare = wide.copy()
    bare.info.clear()
    assert saved(bare, quality=40, icc_profile=wide.info["icc_profile"]) == with_profile


def photo_in_another_space() -> Image.Image:
    """Make an RGB picture whose profile swaps red and blue, as no real one does but any could."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    image = PHOTO.copy()
    image.info["icc_profile"] = bytes(profile)
    return image


def test_the_limit_on_pixels_holds_for_saving(options: None) -> None:
    register_sprdiff_opener(max_pixels=6143, threads=1)
    with pytest.raises(OSError, match="96 x 64"):
        saved(PHOTO)


def test_a_target_that_cannot_be_reached_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="smallest") as caught:
        PHOTO.save(tmp_path / "x.sprd", max_bytes=3)
    assert isinstance(caught.value, PluginError)
    assert isinstance(caught.value.__cause__, sprdiff.TargetError) and caught.value.__cause__.smallest > 3
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Pillow empties an existing file before it calls the plug-in; nothing of a picture is in it then."""
    path = tmp_path / "x.sprd"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="smallest"):
        PHOTO.save(path, max_bytes=3)
    assert path.read_bytes() in (b"", b"old")
    stream = io.BytesIO()
    with pytest.raises(OSError, match="smallest"):
        PHOTO.save(stream, "SPRDIFF", max_bytes=3)
    assert stream.getvalue() == b""


def test_saving_over_the_open_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sprd"
    path.write_bytes(sprd())
    wanted = sprdiff.encode(sprdiff.decode(sprd()), quality=10)
    with Image.open(path) as image:
        image.save(path, quality=10)
    assert path.read_bytes() == wanted


def test_the_first_of_several_frames_is_saved() -> None:
    stream = io.BytesIO()
    PHOTO.save(stream, "TIFF", save_all=True, append_images=[Image.new("RGB", SIZE)])
    assert saved(Image.open(stream), quality=40) == saved(PHOTO, quality=40)


def test_a_file_opened_through_pillow_encodes_again() -> None:
    assert sprdiff.encode(Image.open(io.BytesIO(sprd())), quality=20) == sprdiff.encode(
        sprdiff.decode(sprd()), quality=20
    )
