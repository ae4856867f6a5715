"""The options of encoding and decoding: frozen dataclasses that check their values once, for every way in.

The library, the command line, Pillow, batches and the web service all build them, so a value is legal
everywhere or nowhere. This module imports nothing heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from .format.constants import LEVELS
from .format.container import SCALES
from .limits import MAX_PIXELS, MAX_STEPS
from .sd.config import check_precision

if TYPE_CHECKING:
    from .imageio.colour import Rgb

Scale = str | float

AUTO = "auto"
"""The scale that rate control chooses; the precision that the networks choose."""
SCALE_NAMES = (AUTO, *(f"{float(factor):g}" for factor in SCALES))
DEFAULT_BPP = 0.02
"""Bits per pixel where no target is given."""
MAX_EFFORT = 9
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class EncodeOptions:
    """How a picture is encoded. `Codec.encode` describes the fields.

    Raises:
        ValueError: a value is out of its range, or more than one target is given.
        ImageError: the background is not a colour.
    """

    quality: float | None = None
    bpp: float | None = None
    max_bytes: int | None = None
    scale: Scale = AUTO
    background: str | Rgb = "white"
    effort: int = 0

    def __post_init__(self) -> None:
        if sum(target is not None for target in (self.quality, self.bpp, self.max_bytes)) > 1:
            raise ValueError("quality, bpp and max_bytes exclude each other")
        if self.quality is not None:
            quality_level(self.quality)
        if self.bpp is not None and not (math.isfinite(self.bpp) and self.bpp > 0):
            raise ValueError(f"bpp must be a number above 0, not {self.bpp}")
        if self.max_bytes is not None and (not isinstance(self.max_bytes, int) or self.max_bytes < 0):
            raise ValueError(f"max_bytes must be a whole number of at least 0, not {self.max_bytes}")
        scale_code(self.scale)
        if self.background != "white":
            from .imageio.colour import parse_background

            parse_background(self.background)
        _check_whole("effort", self.effort, 0, MAX_EFFORT)

    @property
    def level(self) -> int | None:
        """The quality level, 0-255; None where a size decides."""
        return None if self.quality is None else quality_level(self.quality)

    @property
    def scale_code(self) -> int | None:
        """The index into `SCALES`; None where rate control chooses."""
        return scale_code(self.scale)

    @property
    def has_limit(self) -> bool:
        """Whether a largest size was asked for; without it the smallest file will do where 0.02 bpp is too
        little."""
        return self.bpp is not None or self.max_bytes is not None

    def limit(self, width: int, height: int) -> int:
        """Return the most bytes of the file of a picture of this size."""
        if self.max_bytes is not None:
            return self.max_bytes
        return math.floor((DEFAULT_BPP if self.bpp is None else self.bpp) * width * height / 8)


@dataclass(frozen=True)
class DecodeOptions:
    """How a file is decoded. `Codec.decode` describes the fields.

    Raises:
        ValueError: a value is out of its range.
    """

    realism: float | None = None
    steps: int | None = None
    seed: int = 0
    partial: bool = False

    def __post_init__(self) -> None:
        if self.realism is not None and not 0 <= self.realism <= 1:
            raise ValueError(f"realism must be from 0 to 1, not {self.realism}")
        if self.steps is not None:
            _check_whole("steps", self.steps, 1, MAX_STEPS)
        _check_whole("seed", self.seed, 0, MAX_SEED)


@dataclass(frozen=True)
class CodecOptions:
    """Which networks a codec runs, and within which limits. `Codec` describes the fields.

    Raises:
        ValueError: a number is below 1, or there is no such precision.
    """

    weights: Path | str | None = None
    threads: int | None = None
    max_pixels: int = MAX_PIXELS
    precision: str = AUTO

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, not {self.max_pixels}")
        check_precision(self.precision)


def quality_level(quality: float) -> int:
    """Return the level 0-255 of a quality 0-100.

    Raises:
        ValueError: the quality is not a number from 0 to 100.
    """
    if not 0 <= quality <= 100:
        raise ValueError(f"quality must be from 0 to 100, not {quality}")
    return math.floor(quality * (LEVELS - 1) / 100 + 0.5)


def scale_code(scale: Scale | Fraction) -> int | None:
    """Return the index into `SCALES` of a factor, given as a number or as text; None for ``"auto"``.

    Raises:
        ValueError: there is no such scale.
    """
    if scale == AUTO:
        return None
    try:
        return SCALES.index(Fraction(scale))
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(
            f"scale must be {AUTO} or one of {', '.join(SCALE_NAMES[1:])}, not {scale!r}"
        ) from error


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value}")
