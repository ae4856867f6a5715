"""``sprdiff-thumbnailer``: a small PNG of an ``.sprd`` file for file managers (``share/thumbnailers``).

The exit status is 0 for success, 1 if there is no thumbnail (with one line on standard error), and 2 for
wrong usage.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from PIL import Image

from . import __version__
from .common.files import write_atomic
from .common.messages import one_line
from .fileinfo import read_sprd
from .loading import stride_of
from .pillow import MAX_PIXELS, MIME, SprdiffImageFile, register_sprdiff_opener

NAME = "sprdiff-thumbnailer"
SECONDS = 60.0
"""The time limit for one picture: a file manager makes many, and nobody waits for a single one."""
SIZES = range(1, 4097)
"""The sizes that may be asked for; the largest of the freedesktop standard is 1024."""


def thumbnail(path: Path | str, size: int, uri: str | None = None) -> bytes:
    """Return a PNG that fits into a square of `size` pixels and is never larger than the picture.

    It has the attributes of the freedesktop thumbnail standard
    (specifications.freedesktop.org/thumbnail-spec): the required Thumb::URI and Thumb::MTime, and the
    optional ones that are known.

    Args:
        uri: the URI of the file; None: that of `path`.

    Raises:
        BitstreamError: the file cannot be read, is no ``.sprd`` file, or its picture has too many pixels.
        OSError: it is damaged, was made with other weights, or takes too long.
    """
    from .imageio.save import encode_image

    data = read_sprd(path, MAX_PIXELS, stride_of(None))
    with SprdiffImageFile(io.BytesIO(data)) as image:
        width, height = image.size
        shrink = size / max(width, height)
        # `thumbnail` asks for twice its square, for which most pictures would have to be decoded in full.
        image.draft(None, (math.ceil(width * shrink), math.ceil(height * shrink)))
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        image.load()  # a picture that is small enough was not changed
        text = {
            "Thumb::URI": uri or Path(os.path.abspath(path)).as_uri(),
            "Thumb::MTime": str(int(os.stat(path).st_mtime)),
            "Thumb::Size": str(len(data)),
            "Thumb::Mimetype": MIME,
            "Thumb::Image::Width": str(width),
            "Thumb::Image::Height": str(height),
            "Software": f"sprdiff {__version__}",
        }
        return encode_image(image, "PNG", text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{NAME}: error: {message}; see {NAME} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=NAME, description="Make a small PNG of an .sprd file, for file managers.")
    parser.add_argument("-s", "--size", type=_size, default=256, help="longest side in pixels (default: 256)")
    parser.add_argument(
        "-u", "--uri", help="what the thumbnail says it was made of (default: the URI of INPUT)"
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    parser.add_argument("input", metavar="INPUT", help=".sprd file")
    parser.add_argument("output", metavar="OUTPUT", help="PNG; a file that exists is replaced")
    return parser


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) in SIZES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {SIZES[0]} to {SIZES[-1]}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    given = _parser().parse_args(arguments)
    register_sprdiff_opener(max_seconds=SECONDS)
    try:
        write_atomic(given.output, thumbnail(given.input, given.size, given.uri), force=True)
    except Exception as error:  # a file manager cannot show a traceback
        text = str(error) or type(error).__name__
        line = text if given.input in text else f"{given.input}: {text}"
        if sys.stderr is not None:
            sys.stderr.write(f"{NAME}: error: {one_line(line)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
