"""From any Pillow mode to 8-bit sRGB: transparency, bit depth, palettes, CMYK, ICC profiles.

    strip of rows ─► colour (L, RGB or CMYK) + alpha ─► ICC profile to sRGB ─► over the background ─► uint8

A picture is converted in strips of rows, so that a large one needs little memory beyond its result.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from .resize import STRIP_PIXELS

Rgb = tuple[int, int, int]
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_WIDE_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
# Pillow's names for layouts of samples deeper than 8 bits in a file (plain "RGB;16" means 5-6-5 bits).
_DEEP = re.compile(r"^(?:[IF];(?P<wide>12|16|32|64)|(?:L|LA|RGB|RGBA|RGBX|RGBa|CMYK)X*;(?P<deep>16)[LBN])")
_PROFILE_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def bit_depth(image: Image.Image) -> int:
    """Bits per sample of the file behind an image that is not loaded yet; of its mode without a file."""
    for tile in getattr(image, "tile", None) or ():
        args = tile[3] if isinstance(tile[3], (tuple, list)) else (tile[3],)
        found = _DEEP.match(args[0]) if args and isinstance(args[0], str) else None
        if found:
            return int(found["wide"] or found["deep"])
        if image.format == "PPM" and len(args) > 1 and isinstance(args[1], int) and args[1] > 255:
            return 16
    return (16 if image.mode.startswith("I;16") else 32) if image.mode in _WIDE_MODES else 8


@dataclass
class Converter:
    """Turns a loaded image into uint8 RGB and remembers what that lost.

    Attributes:
        image: the loaded image, any mode.
        background: RGB colour (0-255) under transparent pixels.
        depth: of its file, from `bit_depth` before it was loaded.
        transparent: set by `pixels` when a pixel was not opaque.
        broken_profile: set when there is an ICC profile that cannot be used.
    """

    image: Image.Image
    background: Rgb
    depth: int
    transparent: bool = field(default=False, init=False)
    broken_profile: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._range = _value_range(self.image, self.depth) if self.image.mode in _WIDE_MODES else (0.0, 255.0)
        self._space, self._transform = self._profile()

    @property
    def grey(self) -> bool:
        """Whether the result has three equal channels because the source had one (known after `pixels`)."""
        tinted = self.transparent and len(set(self.background)) > 1
        return self.image.mode in GREY_MODES and not tinted

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, uint8 [H, W, 3], sRGB."""
        width, height = self.image.size
        out = np.empty((height, width, 3), np.uint8)
        for top, strip in _strips(self.image):
            out[top : top + strip.height] = self._convert(strip)
        return out

    def _convert(self, strip: Image.Image) -> NDArray[np.uint8]:
        colour, alpha = self._split(strip)
        if self._transform is not None:
            colour = ImageCms.applyTransform(colour.convert(self._space), self._transform) or colour
        if self.image.mode in GREY_MODES:
            colour = colour.convert("L")
        rgb = np.asarray(colour.convert("RGB"))
        if alpha is None or np.asarray(alpha).min() == 255:
            return rgb
        self.transparent = True
        weight = np.asarray(alpha, np.uint32)[..., None]
        under = np.array(self.background, np.uint32)
        return ((rgb * weight + under * (255 - weight) + 127) // 255).astype(np.uint8)

    def _split(self, strip: Image.Image) -> tuple[Image.Image, Image.Image | None]:
        """(colour in L, RGB or CMYK; alpha in L or None)."""
        if strip.mode in _WIDE_MODES:
            return self._split_wide(strip)
        if strip.has_transparency_data:
            base = "LA" if strip.mode in GREY_MODES else "RGBA"
            both = strip.convert(base)
            return both.convert(base[:-1]), both.getchannel("A")
        if strip.mode in ("L", "RGB", "CMYK"):
            return strip, None
        return strip.convert("L" if strip.mode == "1" else "RGB"), None

    def _split_wide(self, strip: Image.Image) -> tuple[Image.Image, Image.Image | None]:
        values = np.asarray(strip)
        low, high = self._range
        finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled = np.clip((finite - low) * (255 / (high - low)), 0, 255)
        key = strip.info.get("transparency")
        alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
        return Image.fromarray(np.rint(scaled).astype(np.uint8)), alpha

    def _profile(self) -> tuple[str, Any]:
        """(mode to hand to the ICC transform, transform to sRGB), or ("", None) without a usable profile."""
        data = self.image.info.get("icc_profile")
        if not data or self.image.mode == "LAB":  # Lab values are absolute already
            return "", None
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
            space = _PROFILE_SPACES[profile.profile.xcolor_space.strip()]
            if not self._fits(space):
                raise ValueError("the profile is for another kind of image")
            transform = ImageCms.buildTransform(
                profile,
                ImageCms.createProfile("sRGB"),
                space,
                "RGB",
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except Exception:  # whatever a damaged profile does, the picture itself is still good
            self.broken_profile = True
            return "", None
        return space, transform

    def _fits(self, space: str) -> bool:
        """Grey pictures may carry an RGB profile (of equal channels); else the kinds must agree."""
        if self.image.mode in GREY_MODES:
            return space in ("L", "RGB")
        return space == ("CMYK" if self.image.mode == "CMYK" else "RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, strip) over all rows, each strip an image of the same mode and info."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _value_range(image: Image.Image, depth: int) -> tuple[float, float]:
    """(black, white) of modes I, I;16 and F.

    A file says how deep it is. Other integers and floats have no stated range: the narrowest of 0-1 (floats),
    0-255 (what Pillow's own conversions mean) and 0-65535 that holds them all, or else their own extremes.
    """
    if depth < 32 and image.mode.startswith("I;16"):
        return 0.0, float(2**depth - 1)
    low, high = math.inf, -math.inf
    for _, strip in _strips(image):
        values = np.asarray(strip)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low >= 0 and depth == 16 and high <= 65535:
        return 0.0, 65535.0
    limits = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    for limit in limits:
        if low >= 0 and high <= limit:
            return 0.0, limit
    return (low, high) if low < high else (min(low, 0.0), max(high, 255.0))
