"""Tests of odd pictures against libvips: within 2 of 255 at each pixel, and 4 after a conversion of colour.

What the two read otherwise is in `OTHERWISE`, each with the reason; there our reading has a known right
answer instead.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import photo
from image_helpers import apart, encode_curve, muted, png, ramp, saved, tiff, tiff_pages, to_srgb
from sprdiff.imageio.open import open_rgb
from sprdiff.imageio.primaries import ADOBE, ADOBE_GAMMA, BT2020, P3, SRGB, SRGB_CURVE, matrix_profile

pytestmark = pytest.mark.services
PHOTO = photo(48, 64)
DEEP = PHOTO.astype(np.uint16) * 257
ALPHA = np.dstack([PHOTO, photo(48, 64, 3)[..., :1]])
PROFILES = {
    "P3": matrix_profile(P3, SRGB_CURVE),
    "Adobe RGB": matrix_profile(ADOBE, (ADOBE_GAMMA,)),
    "BT.2020": matrix_profile(BT2020, SRGB_CURVE),
    "linear": matrix_profile(SRGB, (1.0,)),
}


def by_vips(data: bytes) -> NDArray[Any]:
    """Return what libvips makes of a file: upright, sRGB, on white."""
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "", fail_on="error").autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", black_point_compensation=True, intent="relative", embedded=True)
    image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=[255, 255, 255])
    array = (image if image.format == "uchar" else image.cast("uchar")).numpy()
    array = array[..., None] if array.ndim == 2 else array
    return np.broadcast_to(array[..., :3] if array.shape[2] >= 3 else array[..., :1], (*array.shape[:2], 3))


def icc(name: str) -> tuple[bytes, bytes]:
    return b"iCCP", b"x\0\0" + zlib.compress(PROFILES[name])


def icc_tag(name: str) -> list[tuple[Any, ...]]:
    return [(34675, 7, len(PROFILES[name]), PROFILES[name], True)]


def grey(depth: int) -> NDArray[np.int64]:
    return (ramp()[..., 0] * (2**depth - 1)).round().astype(np.int64)


def separate(values: NDArray[Any], **options: Any) -> bytes:
    return tiff(np.moveaxis(values, -1, 0), photometric="rgb", planarconfig="separate", **options)


def vips_tiff(**options: Any) -> bytes:
    import pyvips

    image = pyvips.Image.new_from_array(PHOTO)
    image = image.colourspace("b-w") if options.get("bitdepth") else image
    return bytes(image.tiffsave_buffer(**options))


def profiled_png(name: str, depth: int = 8) -> bytes:
    """Muted colours with a profile; of 16 bits they are darker."""
    shades = muted() * 255 if depth == 8 else muted() ** 2 * 65535
    return png(shades.round(), icc(name), depth=depth)


def profiled_planes(name: str) -> bytes:
    return separate((muted() ** 2 * 65535).round().astype(np.uint16), extratags=icc_tag(name))


Made = Callable[[], bytes]
PLAIN: dict[str, Made] = {
    **{f"png grey {d}": lambda d=d: png(grey(d), depth=d) for d in (1, 2, 4, 8, 16)},  # type: ignore[misc]
    **{
        f"png grey {d}, one shade transparent": lambda d=d: png(  # type: ignore[misc]
            grey(d), (b"tRNS", struct.pack(">H", 2 ** (d - 1) if d < 16 else 1337)), depth=d
        )
        for d in (1, 2, 4, 8, 16)
    },
    "png 16, one colour transparent": lambda: png(DEEP, (b"tRNS", struct.pack(">3H", *DEEP[5, 7])), depth=16),
    "png 16": lambda: png(DEEP, depth=16),
    "png 16 with alpha": lambda: png(ALPHA.astype(np.uint16) * 257, depth=16),
    "png grey and alpha": lambda: png(ALPHA[..., 2:]),
    "png grey and alpha 16": lambda: png(ALPHA[..., 2:].astype(np.uint16) * 257, depth=16),
    "png palette with alpha": lambda: png(
        PHOTO[..., 0] // 4, (b"tRNS", bytes(range(0, 128, 2))), palette=bytes(range(192))
    ),
    "png with long text": lambda: png(PHOTO, (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**22)))),
    "tiff below a thumbnail": lambda: tiff_pages(
        (PHOTO, {"subifds": 1}), (photo(24, 32), {"subfiletype": 1})
    ),
    "tiff 16": lambda: tiff(DEEP, photometric="rgb"),
    "tiff 16 in planes": lambda: separate(DEEP),
    "tiff 16 in planes, packed": lambda: separate(DEEP, compression="zlib", predictor=True),
    "tiff 16 in planes, big-endian": lambda: separate(DEEP, byteorder=">"),
    "tiff grey 16, white is zero": lambda: tiff(DEEP[..., 0], photometric="miniswhite"),
    "tiff grey 16, big-endian, packed": lambda: tiff(
        DEEP[..., 0], byteorder=">", compression="lzw", predictor=True
    ),
    **{
        f"tiff grey {d}, white is {z}": partial(vips_tiff, bitdepth=d, miniswhite=z == "zero")
        for d in (1, 2, 4)
        for z in ("zero", "one")
    },
    **{
        f"tiff {extra}, {planes}, {packing}": partial(
            tiff,
            np.moveaxis(ALPHA, -1, 0) if planes == "separate" else ALPHA,
            photometric="rgb",
            extrasamples=[extra],
            planarconfig=planes,
            compression=packing,
        )
        for extra in ("unassalpha",)
        for planes in ("contig", "separate")
        for packing in (None, "zlib")
    },
    "tiff of JPEG": lambda: vips_tiff(compression="jpeg"),
    "tiff of tiles, with smaller copies below": lambda: vips_tiff(tile=True, pyramid=True, subifd=True),
    "tiff of tiles, with smaller copies after": lambda: vips_tiff(tile=True, pyramid=True),
    "tiff of 64 bits": lambda: vips_tiff(bigtiff=True),
    "tiff of floating colours": lambda: tiff(ramp(3).astype(np.float32), photometric="rgb"),
    "tiff turned": lambda: tiff(PHOTO, photometric="rgb", extratags=[(274, 3, 1, 6, True)]),
    "tiff palette": lambda: saved(Image.fromarray(PHOTO).convert("P"), "TIFF"),
    "jpeg turned": lambda: saved(
        Image.fromarray(PHOTO), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    ),
    "jpeg progressive": lambda: saved(Image.fromarray(PHOTO), "JPEG", progressive=True),
    "gif": lambda: saved(Image.fromarray(PHOTO), "GIF"),
    "webp with alpha": lambda: saved(Image.fromarray(ALPHA), "WEBP", lossless=True),
}
CONVERTED: dict[str, Made] = {
    **{f"png {name}": partial(profiled_png, name) for name in PROFILES},
    **{f"png {name} 16": partial(profiled_png, name, 16) for name in PROFILES},
    **{f"tiff {name} 16 in planes": partial(profiled_planes, name) for name in PROFILES},
    "jpeg P3": lambda: saved(Image.fromarray(PHOTO), "JPEG", quality=95, icc_profile=PROFILES["P3"]),
}
# Reason, file, and what it is: shades of 0-255.
SHADES = (muted() * 255).round()
OTHERWISE: dict[str, tuple[Made, NDArray[Any]]] = {
    "libvips does not look at gAMA": (
        lambda: png(SHADES, (b"gAMA", struct.pack(">I", 100000))),
        to_srgb(SHADES / 255, "srgb", 1.0),
    ),
    "libvips does not look at cICP": (
        lambda: png(SHADES, (b"cICP", b"\x0c\x0d\0\1")),
        to_srgb(SHADES / 255, "p3"),
    ),
    "libvips does not apply a profile for colours to grey": (
        lambda: png(grey(8), icc("linear")),
        np.repeat(encode_curve(grey(8) / 255)[..., None] * 255, 3, 2),
    ),
    "libvips takes a fourth sample of no stated meaning for alpha": (
        lambda: tiff(ALPHA, photometric="rgb", extrasamples=["unspecified"]),
        PHOTO,
    ),
    "libvips shows a thumbnail page where it comes first": (
        lambda: tiff_pages((photo(12, 16), {"subfiletype": 1, "subifds": 1}), (PHOTO, {})),
        PHOTO,
    ),
    "libvips takes whole numbers with a sign as if they had none": (
        lambda: tiff((ramp()[..., 0] * 32767).round().astype(np.int16)),
        np.repeat(ramp() * 255, 3, 2),
    ),
    "libvips cuts 32 bits off at 255": (
        lambda: tiff((ramp()[..., 0] * (2**32 - 1)).round().astype(np.uint32)),
        np.repeat(ramp() * 255, 3, 2),
    ),
    "libvips takes YCbCr that is not packed for RGB": (
        lambda: tiff(
            np.asarray(Image.fromarray(PHOTO).convert("YCbCr")), photometric="ycbcr", subsampling=(1, 1)
        ),
        PHOTO,
    ),
    "libvips converts CMYK without a profile by one of its own": (
        lambda: tiff(np.asarray(Image.fromarray(PHOTO).convert("CMYK")), photometric="separated"),
        PHOTO,
    ),
    "libvips has no LERC": (lambda: tiff(PHOTO, photometric="rgb", compression="lerc"), PHOTO),
}


@pytest.mark.parametrize("name", PLAIN)
def test_odd_pictures(name: str) -> None:
    data = PLAIN[name]()
    assert apart(open_rgb(data).pixels, by_vips(data)) <= 2


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_colours(name: str) -> None:
    data = CONVERTED[name]()
    assert apart(open_rgb(data).pixels, by_vips(data)) <= 4


@pytest.mark.parametrize("reason", OTHERWISE)
def test_what_is_read_otherwise(reason: str) -> None:
    """Our reading is right by the standard; if libvips ever agrees, the file belongs to those above."""
    made, want = OTHERWISE[reason]
    data = made()
    assert apart(open_rgb(data).pixels, want) <= 3
    try:
        theirs = by_vips(data)
    except Exception:  # pyvips.Error, of a package that only services need
        return
    assert theirs.shape != want.shape or apart(theirs, want) > 4
