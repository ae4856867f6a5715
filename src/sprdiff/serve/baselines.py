"""What ordinary codecs make of the same picture within the same bytes, fast enough for somebody who waits.

`evaluate.run.search` finds the best setting by MS-SSIM over qualities and coded sizes. Two things limit its
time and memory here, and the page says so. A picture above `MAX_PIXELS` is first made smaller to that, for
coding and for judging. AVIF runs at speed 4, and at 6 from `SLOW_PIXELS` on, which costs about .01 of MS-SSIM
against speed 2. At these rates the best setting codes a picture several times smaller anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..evaluate.codecs.base import ImageCodec, Quality, Setting, size_of
from ..evaluate.codecs.pillow import Avif, Jpeg, PillowCodec, WebP
from ..evaluate.metrics.distortion import MIN_SIDE, Bytes
from ..evaluate.run.search import FACTORS, best_at
from ..imageio.resize import resize
from ..imageio.save import encode_image, to_pil
from ..interrupt import checkpoint
from .problems import Refusal

BaselineName = Literal["jpeg", "webp", "avif"]
MAX_PIXELS = 2**20
"""The largest picture that baselines code, in pixels."""
LEAST_BPP = 0.15
"""The rate in bits per coded pixel below which nothing is tried, because a smaller coded picture is better
then."""
SLOW_PIXELS = 2**19
"""The number of pixels from which AVIF runs faster: it takes 10 in place of 30 seconds at `MAX_PIXELS`."""
_TITLES: dict[BaselineName, str] = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF"}


@dataclass(frozen=True)
class Baseline:
    """The best file that was found.

    Attributes:
        png: the decoded picture of at most `MAX_PIXELS`, in the aspect ratio of the original.
        size: the size of the whole file in bytes.
        quality: the quality on the codec's own scale.
        scale: how many times smaller than the original the picture was coded.
        version: the version of the codec's library.
    """

    png: bytes
    size: int
    quality: float
    scale: float
    version: str


def best_baseline(name: BaselineName, pixels: Bytes, budget: int, *, or_smallest: bool = False) -> Baseline:
    """Return the codec's best file of at most `budget` bytes; the search can be interrupted before every
    trial.

    Args:
        pixels: the picture, uint8 RGB [H, W, 3].
        or_smallest: if no file is that small, return the smallest one.

    Raises:
        Refusal: 422: the picture is too small for MS-SSIM, or even the smallest file is too large (with its
            size).
        MissingCodec: this Pillow was built without the codec.
    """
    small = _at_most(pixels, MAX_PIXELS)
    codec = _codec(name, small)
    version = codec.version()
    if min(small.shape[:2]) < MIN_SIDE:
        raise Refusal(422, f"a comparison needs a picture of at least {MIN_SIDE} pixels on each side")
    trials = _Trials(codec, budget)
    best = best_at(trials, small, budget)
    data, setting = (best.data, best.setting) if best is not None else trials.smallest(small)
    if len(data) > budget and not or_smallest:
        raise Refusal(
            422, f"the smallest {_TITLES[name]} found for this picture has {len(data)} bytes", len(data)
        )
    decoded = codec.decode_at(data, setting, size_of(small)) if best is None else best.decoded
    quality, factor = setting["quality"], setting["factor"]
    assert isinstance(quality, int | float) and isinstance(factor, int | float)
    scale = factor * pixels.shape[1] / small.shape[1]
    return Baseline(encode_image(to_pil(decoded), "PNG"), len(data), quality, scale, version)


def _codec(name: BaselineName, pixels: Bytes) -> PillowCodec:
    if name == "avif":
        return Avif(speed=4 if pixels.shape[0] * pixels.shape[1] < SLOW_PIXELS else 6)
    return Jpeg() if name == "jpeg" else WebP()


class _Trials(ImageCodec):
    """A codec that can be interrupted and skips what cannot succeed."""

    def __init__(self, codec: PillowCodec, budget: int) -> None:
        self.name = codec.name
        self._codec, self._budget = codec, budget

    @property
    def qualities(self) -> Sequence[Quality]:
        return self._codec.qualities

    def version(self) -> str:
        return self._codec.version()

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        checkpoint(pixels.shape[0] * pixels.shape[1])
        if 8 * self._budget < LEAST_BPP * pixels.shape[0] * pixels.shape[1]:
            return bytes(self._budget + 1)  # stands for a file that does not fit
        return self._codec.encode(pixels, quality)

    def decode(self, data: bytes) -> Bytes:
        checkpoint()
        return self._codec.decode(data)

    def smallest(self, pixels: Bytes) -> tuple[bytes, Setting]:
        """Return the file at the largest factor and one of the lowest qualities, and its setting."""
        settings: list[Setting] = [
            {"quality": quality, "factor": FACTORS[-1]} for quality in self.qualities[:3]
        ]
        files = [(self._codec.encode_at(pixels, setting), setting) for setting in settings]
        return min(files, key=lambda file: len(file[0]))


def _at_most(pixels: Bytes, most: int) -> Bytes:
    """Make a picture smaller to about `most` pixels, if it has more."""
    height, width = pixels.shape[:2]
    factor = math.sqrt(height * width / most)
    if factor <= 1:
        return pixels
    return resize(pixels, (max(1, round(height / factor)), max(1, round(width / factor))))
