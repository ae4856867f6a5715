"""What is done to one picture: bytes to bytes, either way."""

from __future__ import annotations

import builtins
import functools
import io
import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from ..codec import Codec
from ..errors import BitstreamError, SprdiffError, WeightsError
from ..fileinfo import info
from ..format import container
from ..format.container import parse_file
from ..imageio.colour import parse_background
from ..imageio.formats import most_bytes
from ..imageio.identify import may_be_picture
from ..imageio.kinds import refusal
from ..imageio.open import open_rgb
from ..imageio.save import FORMATS, encode_image, output_format
from ..limits import MAX_PIXELS
from ..loading import stride_of
from ..options import AUTO, DecodeOptions, quality_level, scale_code

_FURTHER = (".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jpe", ".jpf", ".jpx", ".jxl", ".pbm", ".pgm", ".psd")
PICTURES = frozenset({*FORMATS, *_FURTHER})
"""Names that are taken for pictures; those of them that this Pillow cannot read fail, and are not passed over."""


@dataclass(frozen=True)
class Made:
    """An output and what the manifest says about it.

    Attributes:
        data: the whole file.
        width, height: of the picture, in pixels.
        bpp: bits per pixel of the ``.sprd`` file, on whichever side it is.
        dropped: what the picture had and the file has not, such as ``alpha``, and what of it is damaged.
    """

    data: bytes
    width: int
    height: int
    bpp: float
    dropped: str = ""


@dataclass(frozen=True)
class Encode:
    """Pictures to ``.sprd``; targets as `Codec.encode` takes them.

    Raises:
        ValueError: a number is out of its range, or two targets are given.
        ImageError: the background is no colour.
    """

    quality: float | None = None
    bpp: float | None = None
    max_bytes: int | None = None
    scale: str = AUTO
    background: str = "white"
    strict: bool = False
    weights: str | None = None
    max_pixels: int = MAX_PIXELS
    sources: ClassVar[frozenset[str]] = PICTURES
    verb: ClassVar[str] = "encode"
    suffix: ClassVar[str] = ".sprd"

    def __post_init__(self) -> None:
        if sum(target is not None for target in (self.quality, self.bpp, self.max_bytes)) > 1:
            raise ValueError("quality, bpp and max_bytes exclude each other")
        if self.quality is not None:
            quality_level(self.quality)
        if not (self.bpp is None or (math.isfinite(self.bpp) and self.bpp > 0)):
            raise ValueError(f"bpp must be a number above 0, not {self.bpp}")
        scale_code(self.scale)
        parse_background(self.background)

    def make(self, data: bytes) -> Made:
        """The ``.sprd`` file of an image file.

        Raises:
            SprdiffError: as of `Codec.encode`.
        """
        picture = open_rgb(data, background=self.background, max_pixels=self.max_pixels, strict=self.strict)
        made = codec(self.weights, self.max_pixels).encode(
            picture, quality=self.quality, bpp=self.bpp, max_bytes=self.max_bytes, scale=self.scale
        )
        height, width = picture.pixels.shape[:2]
        return Made(made, width, height, 8 * len(made) / (width * height), picture.lost)

    def most(self, head: bytes) -> int:
        """Bytes of a picture's file at most, by its first `HEAD` bytes.

        Raises:
            ImageError: it is none.
        """
        if not may_be_picture(head):
            raise refusal("the image", head)
        return most_bytes(self.max_pixels)

    def recognise(self, data: bytes, source: bytes) -> Made | None:
        """What `make` gave before it could be noted; None if it is something else."""
        try:
            about = info(data, weights=self.weights)
        except BitstreamError:
            return None
        return Made(data, about.width, about.height, about.bpp) if about.weights == "at hand" else None


@dataclass(frozen=True)
class Decode:
    """``.sprd`` to pictures of one format; dials as `Codec.decode` takes them.

    Attributes:
        to: the format as an extension without its dot.

    Raises:
        OutputError: there is no such format, or this Pillow cannot write it.
    """

    to: str = "png"
    realism: float | None = None
    steps: int | None = None
    seed: int = 0
    weights: str | None = None
    max_pixels: int = MAX_PIXELS
    sources: ClassVar[frozenset[str]] = frozenset({".sprd"})
    verb: ClassVar[str] = "decode"

    def __post_init__(self) -> None:
        output_format("x" + self.suffix)

    @property
    def suffix(self) -> str:
        """Extension of the outputs."""
        return f".{self.to.lower()}"

    def make(self, data: bytes) -> Made:
        """The image file of an ``.sprd`` file.

        Raises:
            SprdiffError: as of `Codec.decode`, or the format cannot hold the picture.
        """
        decoder = codec(self.weights, self.max_pixels)
        decoded = decoder.decode_with(data, DecodeOptions(self.realism, self.steps, self.seed))
        about = info(data, weights=self.weights)
        made = encode_image(decoded.image, output_format("x" + self.suffix), decoded.text)
        return Made(made, about.width, about.height, about.bpp)

    def most(self, head: bytes) -> int:
        """Bytes of an ``.sprd`` file at most, by its first `HEAD` bytes.

        Raises:
            BitstreamError: it is none, or its picture is above the limit.
        """
        return parse_file(head[: container.HEAD], self.max_pixels).header.most_bytes(stride_of(self.weights))

    def recognise(self, data: bytes, source: bytes) -> Made | None:
        """What `make` gave before it could be noted; None if it is something else."""
        with suppress(Exception), Image.open(io.BytesIO(data)) as image:
            header = parse_file(source).header
            size = header.width, header.height
            if image.size == size and image.format == output_format("x" + self.suffix):
                return Made(data, *size, 8 * len(source) / (size[0] * size[1]))
        return None


Work = Encode | Decode


@functools.cache
def codec(weights: str | None, max_pixels: int) -> Codec:
    """The codec of this process, on one thread: there is a process for every core."""
    return Codec(weights, threads=1, max_pixels=max_pixels)


@dataclass(frozen=True)
class Row:
    """One picture in the manifest.

    Attributes:
        source, target: where it is from and where it went; of containers ``file:member`` or ``file:row``.
        source_bytes, bytes: sizes of the two.
        width, height: in pixels. bpp: bits per pixel of the ``.sprd`` file.
        seconds: from the bytes of the one to those of the other; None if a kill kept it from being noted.
        dropped: what the picture had and the file has not.
        error: why there is no output; then what is not known is None.
    """

    source: str
    target: str
    source_bytes: int | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    bpp: float | None = None
    seconds: float | None = None
    dropped: str = ""
    error: str = ""

    @classmethod
    def of(cls, source: str, target: str, source_bytes: int, made: Made, seconds: float | None) -> Row:
        """The row of a picture that was made."""
        about = made.width, made.height, made.bpp, seconds, made.dropped
        return cls(source, target, source_bytes, len(made.data), *about)

    def line(self) -> builtins.bytes:
        """As a line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


def explain(error: Exception) -> str:
    """One line about why a picture failed.

    Raises:
        WeightsError: no other picture would fare better.
    """
    if isinstance(error, WeightsError):
        raise error
    if isinstance(error, SprdiffError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


def as_record(work: Work) -> dict[str, Any]:
    """Direction and settings, for the record of a run."""
    settings = asdict(work)
    if work.weights is not None:
        settings["weights"] = str(Path(work.weights).resolve())
    return {"direction": work.verb, **settings}
