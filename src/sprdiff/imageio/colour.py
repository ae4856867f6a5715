"""Conversion of any Pillow mode to 8-bit sRGB: transparency, bit depth, palettes, CMYK, ICC profiles.

    strip of rows ─► colour (L, RGB or CMYK) + alpha ─► ICC profile to sRGB ─► over the background ─► uint8

A picture is converted in strips of rows, so that a large one needs little memory beyond its result.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageColor

from ..errors import ImageError
from .facts import Facts
from .resize import STRIP_PIXELS
from .samples import WIDE_MODES, Samples, value_range

Rgb = tuple[int, int, int]
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_PROFILE_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def parse_background(background: str | Rgb) -> Rgb:
    """Return the RGB values (0-255) of a colour in Pillow's notation: ``white``, ``#fff``, ``rgb(0,0,0)``,
    ``hsl(...)``.

    Raises:
        ImageError: it is not an opaque colour.
    """
    try:
        values = ImageColor.getrgb(background) if isinstance(background, str) else tuple(map(int, background))
    except (ValueError, TypeError):
        values = ()
    if len(values) == 4 and values[3] == 255:
        values = values[:3]
    if len(values) != 3 or not all(0 <= v <= 255 for v in values):
        raise ImageError(f"{background!r} is not an opaque colour, such as white or #336699")
    return values[0], values[1], values[2]


@dataclass
class Converter:
    """Converts a loaded image to uint8 RGB and notes what is lost.

    Attributes:
        image: the loaded image in any mode.
        background: the RGB colour (0-255) under transparent pixels.
        facts: what its file says beside its pixels, collected before it was loaded.
        name: the picture's name in messages.
        transparent: whether `pixels` has met a pixel that was not opaque.
        broken_profile: whether there is an ICC profile that cannot be used.
    """

    image: Image.Image
    background: Rgb
    facts: Facts
    name: str = ""
    transparent: bool = field(default=False, init=False)
    broken_profile: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        facts = self.facts
        self._low, self._key = facts.low, facts.key
        self._wide = self.image.mode in WIDE_MODES or facts.samples is not None
        self._numbers = facts.samples or Samples(self._meant(), depth=facts.depth)
        self._range = self._value_range() if self._wide else (0.0, 255.0)
        self._space, self._transform = self._profile()

    def _meant(self) -> np.dtype[Any] | None:
        """Return an image without the sign that Pillow gives to 16-bit samples in 32 bits, as in PPM."""
        return np.dtype(np.uint32) if self.image.mode == "I" and self.facts.depth == 16 else None

    @property
    def grey(self) -> bool:
        """Whether all three channels are equal because the source had one (known after `pixels`)."""
        tinted = self.transparent and len(set(self.background)) > 1
        return self.image.mode in GREY_MODES and not tinted

    def pixels(self) -> NDArray[np.uint8]:
        """Return the picture, uint8 [H, W, 3], sRGB."""
        width, height = self.image.size
        out = np.empty((height, width, 3), np.uint8)
        for top, strip in _strips(self.image):
            low = self._low and self._low.crop((0, top, width, top + strip.height))
            out[top : top + strip.height] = self._convert(strip, low)
        return out

    def _convert(self, strip: Image.Image, low: Image.Image | None) -> NDArray[np.uint8]:
        colour, alpha = self._split(strip, low)
        rgb = self._to_srgb(colour)
        if alpha is None or alpha.min() == 255:
            return rgb
        self.transparent = True
        weight = alpha.astype(np.uint32)[..., None]
        under = np.array(self.background, np.uint32)
        return ((rgb * weight + under * (255 - weight) + 127) // 255).astype(np.uint8)

    def _to_srgb(self, colour: Image.Image | NDArray[np.float32]) -> NDArray[np.uint8]:
        """Convert a strip to 8-bit sRGB: an image in L, RGB or CMYK, or levels 0-255 with fractions."""
        if isinstance(colour, np.ndarray):
            if self._transform is None:
                colour = _image_of(np.rint(colour).astype(np.uint8))
            else:
                return self._as_source(between(colour, self._to_profile))
        elif self._transform is not None:
            return self._as_source(self._to_profile(colour))
        return self._as_source(np.asarray(colour.convert("RGB")))

    def _to_profile(self, colour: Image.Image) -> NDArray[np.uint8]:
        made = ImageCms.applyTransform(colour.convert(self._space), self._transform)
        return np.asarray(made or colour)

    def _as_source(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return three equal channels if the source is grey, even if a profile tints it."""
        if self.image.mode not in GREY_MODES:
            return rgb
        return np.asarray(Image.fromarray(rgb).convert("L").convert("RGB"))

    def _split(
        self, strip: Image.Image, low: Image.Image | None
    ) -> tuple[Image.Image | NDArray[np.float32], NDArray[np.uint8] | None]:
        """Return the colour (in L, RGB or CMYK, or as levels with fractions) and the alpha of a strip, or
        None."""
        if self._wide:
            return self._split_wide(strip)
        if low is not None:
            return self._split_deep(strip, low)
        if self._key is not None and strip.mode == "L":
            return strip, np.where(np.asarray(strip) == self._key, 0, 255).astype(np.uint8)
        if isinstance(self._key, tuple) and strip.mode == "RGB":  # the low bytes are not available
            high = np.array(self._key, np.uint16) >> 8
            return strip, np.where((np.asarray(strip) == high).all(-1), 0, 255).astype(np.uint8)
        if strip.has_transparency_data:
            base = "LA" if strip.mode in GREY_MODES else "RGBA"
            both = strip.convert(base)
            return both.convert(base[:-1]), np.asarray(both.getchannel("A"))
        if strip.mode in ("L", "RGB", "CMYK"):
            return strip, None
        return strip.convert("L" if strip.mode == "1" else "RGB"), None

    def _split_wide(self, strip: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        values = self._numbers.of(np.asarray(strip))
        low, high = self._range
        finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled = np.clip((finite - low) * (255 / (high - low)), 0, 255)
        key = strip.info.get("transparency")
        alpha = np.where(values == key, 0, 255).astype(np.uint8) if isinstance(key, int) else None
        return (255 - scaled if self._numbers.inverted else scaled).astype(np.float32), alpha

    def _split_deep(
        self, strip: Image.Image, low: Image.Image
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        values = np.asarray(strip).astype(np.uint16) << 8 | np.asarray(low)
        if values.ndim == 2:
            values = values[..., None]
        bands = strip.getbands()
        alpha = np.asarray(strip.getchannel("A")) if bands[-1] == "A" else None
        colour = values[..., : len(bands) - (alpha is not None)]
        if isinstance(self._key, tuple):
            alpha = np.where((colour == np.array(self._key, np.uint16)).all(-1), 0, 255).astype(np.uint8)
        shades = colour.astype(np.float32) / np.float32(257)
        return shades[..., 0] if shades.shape[2] == 1 else shades, alpha

    def _value_range(self) -> tuple[float, float]:
        numbers = self._numbers
        if numbers.dtype is None and self.image.mode.startswith("I;16") and numbers.depth <= 16:
            return 0.0, float(2**numbers.depth - 1)
        strips = (numbers.of(np.asarray(strip)) for _, strip in _strips(self.image))
        return value_range(strips, numbers.depth, self.name if self.facts.samples is not None else "")

    def _profile(self) -> tuple[str, Any]:
        """Return the mode for the ICC transform and the transform to sRGB; ("", None) without a usable
        profile."""
        data = self.facts.profile
        if not data or self.image.mode == "LAB":  # Lab values are absolute
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
        except Exception:  # however damaged a profile is, the picture itself is fine
            self.broken_profile = True
            return "", None
        return space, transform

    def _fits(self, space: str) -> bool:
        """Whether a profile suits a mode; grey pictures may have an RGB profile, which takes three equal
        channels."""
        if self.image.mode in GREY_MODES:
            return space in ("L", "RGB")
        return space == ("CMYK" if self.image.mode == "CMYK" else "RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the first row and the strip over all rows; each strip is an image of the same mode and info."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _image_of(shades: NDArray[np.uint8]) -> Image.Image:
    """Return an image of bytes [H, W], [H, W, 3] (RGB) or [H, W, 4] (CMYK)."""
    mode = "L" if shades.ndim == 2 else {3: "RGB", 4: "CMYK"}[shades.shape[2]]
    return Image.frombytes(mode, (shades.shape[1], shades.shape[0]), np.ascontiguousarray(shades).tobytes())


def between(
    shades: NDArray[np.float32], convert: Callable[[Image.Image], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Convert levels with fractions by a conversion of 8-bit levels.

    In 8 bits linear light has no dark levels. Therefore all 8-bit neighbours of a colour are converted, and
    the results are interpolated.

    Args:
        shades: levels 0-255, [H, W] or [H, W, C].
        convert: a function from an image in L, RGB or CMYK to [H, W, 3].
    """
    channels = shades[..., None] if shades.ndim == 2 else shades
    below = np.minimum(np.floor(channels), 254).astype(np.uint8)
    share = channels - below
    total = np.zeros((*channels.shape[:2], 3), np.float32)
    for corner in itertools.product((0, 1), repeat=channels.shape[2]):
        upper = np.array(corner, np.uint8)
        weight = np.where(upper, share, 1 - share).prod(-1, dtype=np.float32)
        neighbour = below + upper
        total += weight[..., None] * convert(_image_of(neighbour[..., 0] if shades.ndim == 2 else neighbour))
    return np.rint(total).astype(np.uint8)
