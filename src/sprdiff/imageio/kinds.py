"""The kind of a file by its first bytes, for files that Pillow alone does not open: a reader for it, or a
clear message.

No plug-in is registered with Pillow here, because the application decides which formats it opens.
"""

from __future__ import annotations

import struct
import warnings
from typing import IO

from PIL import Image, ImageFile

from ..common.extras import need
from ..common.messages import reason
from ..errors import ImageError, UnsupportedImageError
from .boxes import read_jxl_head
from .formats import check_size

HEAD = 2**10
"""How many bytes of a file tell its kind."""
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_READ = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (8, b"WEBP", "WebP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
)
"""Formats that are read here: the position of the signature, the signature, the name."""
_NOT_READ = (
    (0, b"%!PS", "PostScript (EPS), a program that would have to be run"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript (EPS), a program that would have to be run"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<svg", "an SVG drawing"),
    (8, b"CR\x02", "a camera's raw file (CR2)"),
    (4, b"ftypcrx ", "a camera's raw file (CR3)"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)"),
    (0, b"IIRO", "a camera's raw file (ORF)"),
    (0, b"IIU\0", "a camera's raw file (RW2)"),
    (0, b"II\xbc\x01", "a JPEG XR picture"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"FLIF", "a FLIF picture"),
    (0, b"BPG\xfb", "a BPG picture"),
    (0, b"SIMPLE  =", "a FITS file"),
    (4, b"ftyp", "a video, or a picture in a container of MPEG-4"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"SPR", "an .sprd file already"),
)
"""Formats that are not read, for a message; the first that fits counts."""
_UNSUPPORTED = ("unsupported", "not supported", "unrecognized", "unknown", "not implemented", "not available")
"""Words in the errors of Pillow's plug-ins which say that a file is valid but not supported."""


def _named(marks: tuple[tuple[int, bytes, str], ...], head: bytes) -> str:
    return next((name for start, mark, name in marks if head[start:].startswith(mark)), "")


def is_heif(head: bytes) -> bool:
    """Whether a file is HEIC or a related format, except AVIF, which Pillow reads."""
    if head[4:8] != b"ftyp":
        return False
    size = min(struct.unpack(">I", head[:4])[0], len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size, 4))]
    return brands[0] in _HEIF_BRANDS and not {b"avif", b"avis"} & set(brands)


def is_raw(head: bytes) -> bool:
    """Whether a file with the head of a TIFF file is a camera's raw file, whose first page is a preview
    (CR2)."""
    return head[8:10] == b"CR"


def is_jxl(head: bytes) -> bool:
    """Whether a file is a JPEG XL picture."""
    return head.startswith(_JXL)


def open_by_extra(stream: IO[bytes], head: bytes, name: str, max_pixels: int) -> ImageFile.ImageFile | None:
    """Open a picture of a format that a package of an extra reads; return None if it has no such format.

    Args:
        head: its first bytes.
        name: its name in messages.
        max_pixels: the limit for JPEG XL, whose plug-in decodes a picture when it opens it.

    Raises:
        ImageError: the package is missing, or the file is damaged or too large.
    """
    if is_heif(head):
        heif = need("pillow_heif", "heif", UnsupportedImageError, what=f"{name} is a HEIC picture, which")
        stream.seek(0)
        try:
            image: ImageFile.ImageFile = heif.HeifImageFile(stream, "")
        except SyntaxError as error:
            raise ImageError(f"{name} is a HEIC picture that is damaged or not supported: {error}") from error
        return image
    return _open_jxl(stream, name, max_pixels) if is_jxl(head) else None


def _open_jxl(stream: IO[bytes], name: str, max_pixels: int) -> ImageFile.ImageFile:
    registered = set(Image.ID)
    what = f"{name} is a JPEG XL picture, which"
    plugin = need("pillow_jxl.JpegXLImagePlugin", "jxl", UnsupportedImageError, what=what)
    for kind in set(Image.ID) - registered:  # the package registers itself when it is imported
        Image.ID.remove(kind)
        Image.OPEN.pop(kind, None)
    try:
        head = read_jxl_head(stream)
    except ValueError as error:
        raise ImageError(f"{name} is a damaged JPEG XL picture: {error}") from error
    check_size((head.width, head.height), name, max_pixels)
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # floats become wider, which loses nothing
        image: ImageFile.ImageFile = plugin.JXLImageFile(stream, "")
    check_size(image.size, name, max_pixels)
    return image


def refusal(name: str, head: bytes) -> UnsupportedImageError:
    """Return the error for a file that nothing here opens."""
    if not head:
        return UnsupportedImageError(f"{name} is empty")
    if other := _named(_NOT_READ[:5], head):  # CR2 looks like TIFF
        return UnsupportedImageError(f"{name} is {other}: that is not supported")
    if kind := _named(_READ, head):
        text = f"{name} is not an image that can be read: its head says {kind}, what follows does not"
        return UnsupportedImageError(text)
    if other := _named(_NOT_READ, head):
        return UnsupportedImageError(f"{name} is {other}: that is not supported")
    return UnsupportedImageError(f"{name} is not an image that can be read")


def failure(name: str, error: Exception) -> ImageError:
    """Return the error for a file that was opened but could not be decoded."""
    text = reason(error)
    if any(word in text.lower() for word in _UNSUPPORTED):
        return ImageError(f"{name} is of a kind that is not supported: {text}")
    return ImageError(f"{name} is damaged or truncated: {text}")
