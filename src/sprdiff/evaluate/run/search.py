"""The best picture within a budget of bytes: every codec gets the setting that serves it best, image by image.

At these rates ordinary codecs do better when they code a smaller picture, so the search goes over
quality x factor. It judges by MS-SSIM; other metrics are measured on what it chose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import TargetError
from ..codecs.base import BudgetCodec, ImageCodec, Quality, Setting, coded_size, size_of
from ..metrics.distortion import Bytes, ms_ssim, ms_ssim_from

FACTORS = (1, 1.5, 2, 3, 4, 6, 8)
"""How much smaller the coded picture may be; shrunk and enlarged with Lanczos. The same as those of ``.sprd``."""

_LOOK_AHEAD = 4
"""Qualities above the best fitting one that are tried as well, where files do not grow strictly."""
_WELL_USED = 0.97
_NEAR = 1.05
_TRIALS = 8
_LEAST_GROWTH = 0.01
_USUAL_BPP = 0.3
"""Bits per coded pixel near which the best factor of ordinary codecs mostly lies."""

Key = tuple[float, Quality]


@dataclass(frozen=True)
class Choice:
    """The best file found.

    Attributes:
        data: the whole file, at most as large as the budget.
        decoded: uint8 RGB [H, W, 3] at the original's size, decoded from `data`.
        setting: what `ImageCodec.encode_at` makes it with, such as ``{"quality": 23, "factor": 1.5}``.
        ms_ssim: of `decoded`, 0-1.
    """

    data: bytes
    decoded: Bytes
    setting: Setting
    ms_ssim: float

    @property
    def rank(self) -> tuple[float, int]:
        """What makes one choice better than another: MS-SSIM, then a smaller file."""
        return self.ms_ssim, -len(self.data)


@dataclass
class Cache:
    """What is known of one image under one codec: hand the same to all budgets of that image.

    Attributes:
        files, scores: whole files, and MS-SSIM of those that have been among the best, by factor and quality.
        smallest: bytes of the smallest file met so far; None before the first.
    """

    files: dict[Key, bytes] = field(default_factory=dict)
    scores: dict[Key, float] = field(default_factory=dict)
    smallest: int | None = None

    def met(self, size: int) -> None:
        """Remember the size of a file."""
        self.smallest = size if self.smallest is None else min(self.smallest, size)


def best_at(codec: ImageCodec, pixels: Bytes, budget_bytes: int, cache: Cache | None = None) -> Choice | None:
    """The file of at most `budget_bytes` with the highest MS-SSIM, over qualities and `FACTORS`.

    The receiver is told the original's size and the factor for free, which favours every codec but sprdiff,
    whose files hold both. A `BudgetCodec` chooses by its own rate control instead.

    Args:
        codec: what encodes.
        pixels: uint8 RGB [H, W, 3], both sides at least 161 (see `metrics.ms_ssim`).
        budget_bytes: of the whole file, headers and all.
        cache: of this image and codec; None: nothing is kept.

    Returns:
        None where even the smallest file is larger; ``cache.smallest`` then has its size in bytes.

    Raises:
        CodecError: the codec failed.
        ImageError: the picture is too small for MS-SSIM.
    """
    cache = Cache() if cache is None else cache
    if isinstance(codec, BudgetCodec):
        return _by_rate_control(codec, pixels, budget_bytes, cache)
    images = {factor: _Image(codec, pixels, factor, cache) for factor in _factors(pixels)}
    keys = [(factor, quality) for factor, image in images.items() for quality in image.fitting(budget_bytes)]
    best: Choice | None = None
    for factor, quality in sorted(keys, key=lambda key: _unlikely(key[0], pixels, budget_bytes)):
        found = images[factor].choice(quality, -math.inf if best is None else best.ms_ssim)
        # Of equals the smaller file, so that the result does not depend on the order of trials.
        if found is not None and (best is None or found.rank > best.rank):
            best = found
    return best


def _unlikely(factor: float, pixels: Bytes, budget: int) -> float:
    """How far a factor is from what mostly wins: the sooner a good score is known, the sooner others are given up."""
    height, width = size_of(pixels)
    return abs(math.log(8 * budget * factor**2 / (height * width * _USUAL_BPP)))


def _by_rate_control(codec: BudgetCodec, pixels: Bytes, budget: int, cache: Cache) -> Choice | None:
    try:
        data, setting = codec.encode_to(pixels, budget)
    except TargetError as error:
        cache.met(error.smallest)
        return None
    cache.met(len(data))
    decoded = codec.decode_at(data, setting, size_of(pixels))
    return Choice(data, decoded, setting, ms_ssim(pixels, decoded))


def _factors(pixels: Bytes) -> list[float]:
    """The factors that give pictures of different sizes."""
    sizes = {coded_size(size_of(pixels), factor): factor for factor in reversed(FACTORS)}
    return sorted(sizes.values())


class _Image:
    """One picture made smaller by one factor, encoded at as many qualities as the search asks for."""

    def __init__(self, codec: ImageCodec, pixels: Bytes, factor: float, cache: Cache) -> None:
        self._codec, self._pixels, self._factor, self._cache = codec, pixels, factor, cache

    def size(self, quality: Quality) -> int:
        """Bytes of the whole file."""
        key = (self._factor, quality)
        if key not in self._cache.files:
            self._cache.files[key] = self._codec.encode_at(self._pixels, self._setting(quality))
            self._cache.met(len(self._cache.files[key]))
        return len(self._cache.files[key])

    def choice(self, quality: Quality, least: float) -> Choice | None:
        """The file with its decoded picture and MS-SSIM; None where that is less than `least`."""
        key = (self._factor, quality)
        if self._cache.scores.get(key, least) < least:
            return None
        decoded = self._decoded(quality)
        if key not in self._cache.scores:
            score = ms_ssim_from(self._pixels, decoded, least)
            if score is None:
                return None
            self._cache.scores[key] = score
        return Choice(self._cache.files[key], decoded, self._setting(quality), self._cache.scores[key])

    def fitting(self, budget: int) -> list[Quality]:
        """The best qualities whose files fit; none when not even the first few do."""
        qualities = self._codec.qualities
        low = self._last_fitting(qualities, budget)
        if low is None:
            return []
        found = [qualities[low]]
        after = qualities[low + 1 : low + 1 + _LOOK_AHEAD]
        # Where the next file is far too large, no later one fits: sizes waver by a few percent only.
        if after and self.size(qualities[low]) < _WELL_USED * budget and self.size(after[0]) <= _NEAR * budget:
            found += [q for q in after[1:] if self.size(q) <= budget]
        return found

    def _last_fitting(self, qualities: Sequence[Quality], budget: int) -> int | None:
        """An index that fits while the next does not, or is the last; None: neither of the first two fits.

        Sizes grow about geometrically, so the next quality to try follows from the last two; large files, which take
        longest to encode, are hardly ever met. Where that does not converge, bisection does.
        """
        first = next((i for i in range(min(2, len(qualities))) if self.size(qualities[i]) <= budget), None)
        if first is None:
            return None
        low, high, last, trials = first, len(qualities), first, 0
        trial = low + 1
        while high - low > 1:
            growth = self._growth(qualities, last, trial)
            last, trials = trial, trials + 1
            low, high = (trial, high) if self.size(qualities[trial]) <= budget else (low, trial)
            ahead = math.log(budget / self.size(qualities[low])) / growth if trials <= _TRIALS else (high - low) / 2
            trial = low + min(max(1, int(ahead)), max(1, high - low - 1))
        return low

    def _growth(self, qualities: Sequence[Quality], i: int, j: int) -> float:
        """By how much the logarithm of the size grows from one quality to the next, at least a little."""
        sizes = self.size(qualities[i]), self.size(qualities[j])
        return max(math.log(sizes[1] / sizes[0]) / (j - i), _LEAST_GROWTH)

    def _decoded(self, quality: Quality) -> Bytes:
        data = self._cache.files[self._factor, quality]
        return self._codec.decode_at(data, self._setting(quality), size_of(self._pixels))

    def _setting(self, quality: Quality) -> Setting:
        return {"quality": quality, "factor": self._factor}
