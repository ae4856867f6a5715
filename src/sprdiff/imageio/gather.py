"""What the file of a Pillow image says and Pillow does not: colour, depth, transparency, other contents.

It is collected before the pixels are decoded, because Pillow closes the file then.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from PIL import ExifTags, Image, ImageFile

from .boxes import Described, describe_heif, describe_jpeg2000, read_jxl_head
from .facts import Facts
from .formats import MOST_FRAMES, count_frames
from .jpeg import has_gain_map, is_adobe_rgb
from .png import GREY_STEPS, Chunks, walk
from .primaries import HDR, adobe, from_chromaticities, from_codes
from .samples import WIDE_MODES
from .tiff import Tiff, repair_planes, samples_of, tiff_depth
from .tiff_pages import ORIENTATION

GAIN_MAP = "HDR gain map"
# Pillow's names for the layout of samples in a file that are deeper than 8 bits (plain "RGB;16" means 5-6-5
# bits).
_DEEP = re.compile(r"^(?:[IF];(?P<wide>12|16|32|64)|(?:L|LA|RGB|RGBA|RGBX|RGBa|CMYK)X*;(?P<deep>16)[LBN])")
_TWINS = {
    f"{mode};16{a}": f"{mode};16{b}" for mode in ("RGB", "RGBA", "RGBX", "CMYK") for a, b in ("BL", "LB")
}
_TWINS |= {
    f"{mode};16N": f"{mode};16{'B' if sys.byteorder == 'little' else 'L'}" for mode in ("RGB", "RGBA", "RGBX")
}
_GREY_ALPHA = "LA;16B"


def bit_depth(image: Image.Image) -> int:
    """Return the bits per sample in the file of an image that is not loaded yet, or those of its mode if
    there is no file."""
    for tile in getattr(image, "tile", None) or ():
        if found := _DEEP.match(_layout(tile)):
            return int(found["wide"] or found["deep"])
        args = tile[3]
        if image.format == "PPM" and isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 255:
            return 16
    return (16 if image.mode.startswith("I;16") else 32) if image.mode in WIDE_MODES else 8


def gather(image: Image.Image, chunks: Chunks | None = None, tiff: Tiff | None = None) -> Facts:
    """Return the facts about an image; if it is loaded already, there are fewer.

    Args:
        chunks: the chunks of a PNG file, if they have been read.
        tiff: the pages of a TIFF file, if they have been read.
    """
    depth = max(bit_depth(image), tiff_depth(image))
    facts = Facts(depth, image.info.get("icc_profile") or None, samples=samples_of(image))
    if image.format == "PNG":
        _about_png(image, facts, chunks)
    elif image.format in _ABOUT:
        _ABOUT[image.format](image, facts)
    elif facts.profile is None:
        _name_by_gamma(image, facts)
    if tiff is not None:
        facts.further = tiff.pages.further()
        first = tiff.pages.chain[0]
        if tiff.page is not first and ORIENTATION not in tiff.page.tags:
            facts.orientation = first.first(ORIENTATION, 1)
    return facts


def _about_png(image: Image.Image, facts: Facts, chunks: Chunks | None) -> None:
    if chunks is None:
        with _file_of(image) as stream:
            chunks = Chunks() if stream is None else walk(stream)
    else:
        facts.dropped += chunks.lost
        facts.damage = chunks.damage
    facts.profile = facts.profile or chunks.profile
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode == "L":
        facts.key = key * GREY_STEPS.get(chunks.depth, 1)
    if isinstance(key, tuple) and image.mode == "RGB" and chunks.depth == 16:
        facts.depth, facts.key = 16, key
    if chunks.cicp and chunks.cicp[1] in HDR:
        facts.dropped.append(from_codes(*chunks.cicp[:2]).doubt)
    elif chunks.cicp:  # it takes precedence over everything else
        facts.name_colour(from_codes(*chunks.cicp[:2]))
        return
    if facts.profile is None:
        _name_by_gamma(image, facts)


def _name_by_gamma(image: Image.Image, facts: Facts) -> None:
    """Take over the colour of a PNG file that Pillow keeps, and that an image keeps when it is changed."""
    gamma, found = image.info.get("gamma"), image.info.get("chromaticity")
    if "srgb" not in image.info and not (gamma is None and found is None):
        usable = found if isinstance(found, tuple) and len(found) == 8 else None
        facts.name_colour(from_chromaticities(usable, gamma if isinstance(gamma, float) else None))


def _about_jpeg(image: Image.Image, facts: Facts) -> None:
    if isinstance(image, ImageFile.ImageFile) and has_gain_map(image):
        facts.dropped.append(GAIN_MAP)
        facts.further = 0
    if facts.profile is None and image.mode == "RGB":
        try:
            exif = image.getexif()
            if is_adobe_rgb(exif):
                facts.name_colour(adobe())
        except Exception:  # a picture with damaged metadata can still be used
            return


def _about_jxl(image: Image.Image, facts: Facts) -> None:
    with _file_of(image) as stream:
        if stream is not None:
            facts.depth = max(facts.depth, read_jxl_head(stream).depth)
    if not getattr(image, "jpeg", False):
        facts.orientation = 1  # the decoder has turned it, but has not changed the EXIF data


def _about_boxes(describe: Callable[[IO[bytes]], Described]) -> Callable[[Image.Image, Facts], None]:
    def about(image: Image.Image, facts: Facts) -> None:
        with _file_of(image) as stream:
            found = Described() if stream is None else describe(stream)
        facts.depth = max(found.depth, facts.depth)
        facts.dropped += [GAIN_MAP] if found.gain_map else []
        facts.profile = facts.profile or found.profile
        if found.codes is None:
            return
        if found.codes[1] in HDR:
            facts.dropped.append(from_codes(*found.codes).doubt)
        elif facts.profile is None:
            facts.name_colour(from_codes(*found.codes))

    return about


_ABOUT: dict[str | None, Callable[[Image.Image, Facts], None]] = {
    "JPEG": _about_jpeg,
    "MPO": _about_jpeg,
    "JXL": _about_jxl,
    "AVIF": _about_boxes(describe_heif),
    "HEIF": _about_boxes(describe_heif),
    "JPEG2000": _about_boxes(describe_jpeg2000),
}


def prepare(image: Image.Image, facts: Facts) -> None:
    """Prepare an image, whose size is known to be within the limits, for decoding."""
    if not (isinstance(image, ImageFile.ImageFile) and image.tile):
        return
    repair_planes(image)
    if facts.profile is not None or isinstance(facts.key, tuple):
        facts.low = _low_bytes(image)


def _layout(tile: ImageFile._Tile) -> str:
    """Return Pillow's name for the layout of the samples in a part of a file."""
    args = tile[3]
    first = args[0] if isinstance(args, (tuple, list)) and args else args
    return first if isinstance(first, str) else ""


@contextmanager
def _file_of(image: Image.Image) -> Iterator[IO[bytes] | None]:
    """Return the file of an image at its start, or None if it is not available.

    Pillow closes it once the pixels are decoded; then it is opened again by its name.
    """
    stream, name = getattr(image, "fp", None), getattr(image, "filename", None)
    decoded = getattr(image, "_im", None) is not None
    if decoded and isinstance(name, str) and os.path.isfile(name):
        with open(name, "rb") as again:
            yield again
    elif decoded or stream is None or getattr(stream, "closed", False):
        yield None
    else:
        position = stream.tell()
        try:
            stream.seek(0)
            yield stream
        finally:
            stream.seek(position)


def _low_bytes(image: ImageFile.ImageFile) -> Image.Image | None:
    """Return the low bytes of 16-bit colours as an image of the same mode; None for all other images.

    The file is decoded a second time in the other byte order, so that the low bytes take the place of the
    high ones.
    """
    layout = _layout(image.tile[0])
    planes = image.format == "TIFF" and layout in ("R;16L", "R;16B")
    if not planes and layout not in _TWINS and layout != _GREY_ALPHA:
        return None
    with _file_of(image) as stream:
        if stream is None:
            return None
        twin = type(image)(stream, "")
        twin.seek(image.tell())
        if planes:
            repair_planes(twin, low=True)
        else:
            other = "RGBA" if layout == _GREY_ALPHA else _TWINS[layout]
            twin.tile = [
                t._replace(args=(other, *t[3][1:]) if isinstance(t[3], tuple) else other) for t in twin.tile
            ]
        twin.load()
    if layout == _GREY_ALPHA:  # read as four bytes: high and low of grey, high and low of alpha
        _, low, _, alpha = twin.split()
        return Image.merge("RGBA", (low, low, low, alpha))
    return twin


def orientation_of(image: Image.Image, facts: Facts) -> int:
    """Return the EXIF orientation; 1 if it is unknown."""
    if facts.orientation is not None:
        return facts.orientation
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a picture with damaged metadata can still be used
        return 1


def further_frames(image: Image.Image, facts: Facts) -> str:
    """Return in words what else the file contains."""
    try:
        further = count_frames(image) - 1 if facts.further is None else facts.further
    except Exception:  # damage in a later frame does not matter, because the frame is dropped
        return "further frames"
    more = "at least " if further >= MOST_FRAMES - 1 else ""
    return "" if further < 1 else f"{more}{further} further frame{'s' if further > 1 else ''}"
