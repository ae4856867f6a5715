"""The two directions of a run: bytes of a picture to bytes of an ``.sprd`` file, and back."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..codec import Codec
from ..fileinfo import model_info
from ..format import container
from ..format.container import parse_file
from ..imageio.formats import most_bytes
from ..imageio.identify import may_be_picture
from ..imageio.kinds import refusal
from ..imageio.open import open_rgb
from ..imageio.save import FORMATS, encode_image, output_format
from ..limits import MAX_PIXELS
from ..loading import stride_of
from ..options import DecodeOptions, EncodeOptions

_FURTHER = (
    ".dib",
    ".gif",
    ".heic",
    ".heif",
    ".j2k",
    ".jfif",
    ".jpe",
    ".jpf",
    ".jpx",
    ".jxl",
    ".pbm",
    ".pgm",
    ".psd",
)
SUFFIXES = frozenset({*FORMATS, *_FURTHER})
"""Files with these suffixes count as pictures; one that this Pillow cannot read fails and is not skipped."""


@dataclass(frozen=True)
class Made:
    """An output and what the manifest says about it.

    Attributes:
        data: the whole file.
        width, height: of the picture, in pixels.
        bpp: bits per pixel of the ``.sprd`` file, in either direction.
        dropped: what the picture has and the output lacks, such as ``alpha``, and which damage the picture
            has.
    """

    data: bytes
    width: int
    height: int
    bpp: float
    dropped: str = ""


@dataclass(frozen=True)
class Encode(EncodeOptions):
    """Encode pictures to ``.sprd`` files.

    Attributes:
        strict: refuse damaged pictures even if they can be read.
        weights: a folder of weights; None: those of the package.
        max_pixels: larger pictures are refused.

    Raises:
        ValueError: a number is out of its range, or two targets are given.
        ImageError: the background is no colour.
    """

    strict: bool = False
    weights: str | None = None
    max_pixels: int = MAX_PIXELS
    sources: ClassVar[frozenset[str]] = SUFFIXES
    verb: ClassVar[str] = "encode"
    suffix: ClassVar[str] = ".sprd"

    def make(self, data: bytes) -> Made:
        """Encode an image file.

        Raises:
            SprdiffError: as `Codec.encode` raises it.
        """
        picture = open_rgb(data, background=self.background, max_pixels=self.max_pixels, strict=self.strict)
        made = codec(self.weights, self.max_pixels).encode_with(picture, self)
        height, width = picture.pixels.shape[:2]
        return Made(made, width, height, 8 * len(made) / (width * height), picture.lost)

    def most(self, head: bytes) -> int:
        """Return how many bytes an image file may have that begins with `head`, its first `HEAD` bytes.

        Raises:
            ImageError: no image file begins so.
        """
        if not may_be_picture(head):
            raise refusal("the image", head)
        return most_bytes(self.max_pixels)


@dataclass(frozen=True)
class Decode(DecodeOptions):
    """Decode ``.sprd`` files to pictures of one format.

    Attributes:
        to: the format, as a file name extension without its dot.
        weights: a folder of weights; None: those of the package.
        max_pixels: larger pictures are refused.

    Raises:
        ValueError: a number is out of its range.
        OutputError: there is no such format, or this Pillow cannot write it.
    """

    to: str = "png"
    weights: str | None = None
    max_pixels: int = MAX_PIXELS
    sources: ClassVar[frozenset[str]] = frozenset({".sprd"})
    verb: ClassVar[str] = "decode"

    def __post_init__(self) -> None:
        super().__post_init__()
        output_format("x" + self.suffix)

    @property
    def suffix(self) -> str:
        """The file name extension of the outputs."""
        return f".{self.to.lower()}"

    def make(self, data: bytes) -> Made:
        """Decode an ``.sprd`` file.

        Raises:
            SprdiffError: as `Codec.decode` raises it, or the format cannot hold the picture.
        """
        decoded = codec(self.weights, self.max_pixels).decode_with(data, self)
        width, height = decoded.header.width, decoded.header.height
        made = encode_image(decoded.image, output_format("x" + self.suffix), decoded.text)
        return Made(made, width, height, 8 * len(data) / (width * height))

    def most(self, head: bytes) -> int:
        """Return how many bytes an ``.sprd`` file may have that begins with `head`, its first `HEAD` bytes.

        Raises:
            BitstreamError: no ``.sprd`` file begins so, or its picture is above the limit.
        """
        return parse_file(head[: container.HEAD], self.max_pixels).header.most_bytes(stride_of(self.weights))


Work = Encode | Decode


@functools.cache
def codec(weights: str | None, max_pixels: int) -> Codec:
    """Return the codec of this process; it uses one thread, because there is a process for every core."""
    return Codec(weights, threads=1, max_pixels=max_pixels)


def as_record(work: Work) -> dict[str, Any]:
    """Return direction, options and networks in the form in which the record of a run holds them.

    Raises:
        WeightsError: there are no such weights.
    """
    weights = None if work.weights is None else str(Path(work.weights).resolve())
    model = model_info(work.weights).networks
    return {"direction": work.verb, **asdict(work), "weights": weights, "model": model}
