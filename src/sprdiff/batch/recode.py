"""The two directions of a run: bytes of a picture to bytes of an ``.sprd`` file, and back."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..codec import Codec
from ..fileinfo import info, model_info, picture_text, stride_of
from ..format import container
from ..format.container import parse_file
from ..imageio.colour import parse_background
from ..imageio.formats import most_bytes
from ..imageio.kinds import refusal
from ..imageio.open import MAX_PIXELS, may_be_picture, open_rgb
from ..imageio.save import FORMATS, encode_image, output_format
from ..ratecontrol import AUTO, quality_level, scale_code

_FURTHER = (".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jpe", ".jpf", ".jpx", ".jxl", ".pbm", ".pgm", ".psd")
SUFFIXES = frozenset({*FORMATS, *_FURTHER})
"""Files with these suffixes are taken for pictures; one that this Pillow cannot read fails and is not passed over."""


@dataclass(frozen=True)
class Made:
    """An output and what the manifest says about it.

    Attributes:
        data: the whole file.
        width, height: of the picture, in pixels.
        bpp: bits per pixel of the ``.sprd`` file, in either direction.
        dropped: what the picture has and the output lacks, such as ``alpha``, and which damage the picture has.
    """

    data: bytes
    width: int
    height: int
    bpp: float
    dropped: str = ""


@dataclass(frozen=True)
class Encode:
    """Encode pictures to ``.sprd`` files; the options are those of `Codec.encode`.

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
    sources: ClassVar[frozenset[str]] = SUFFIXES
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
        """Encode an image file.

        Raises:
            SprdiffError: as `Codec.encode` raises it.
        """
        picture = open_rgb(data, background=self.background, max_pixels=self.max_pixels, strict=self.strict)
        made = codec(self.weights, self.max_pixels).encode(
            picture, quality=self.quality, bpp=self.bpp, max_bytes=self.max_bytes, scale=self.scale
        )
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
class Decode:
    """Decode ``.sprd`` files to pictures of one format; the options are those of `Codec.decode`.

    Attributes:
        to: the format, as a file name extension without its dot.

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
        """The file name extension of the outputs."""
        return f".{self.to.lower()}"

    def make(self, data: bytes) -> Made:
        """Decode an ``.sprd`` file.

        Raises:
            SprdiffError: as `Codec.decode` raises it, or the format cannot hold the picture.
        """
        decoder = codec(self.weights, self.max_pixels)
        image = decoder.decode(data, realism=self.realism, steps=self.steps, seed=self.seed)
        about = info(data, weights=self.weights)
        text = picture_text(data, decoder.runtime.manifest, self.realism)
        made = encode_image(image, output_format("x" + self.suffix), text)
        return Made(made, about.width, about.height, about.bpp)

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
