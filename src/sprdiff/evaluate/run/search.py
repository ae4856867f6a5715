"""The search for the best picture within a budget of bytes: every codec gets its best setting for every
image.

At these rates ordinary codecs do better when they code a smaller picture, so the search covers quality and
factor. It maximises MS-SSIM; the other metrics are measured on its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import TargetError
from ..codecs.base import BudgetCodec, ImageCodec, Quality, Setting, coded_size, size_of
from ..metrics.distortion import Bytes, ms_ssim, ms_ssim_from

FACTORS = (1, 1.5, 2, 3, 4, 6, 8)
"""Factors by which the coded picture may be smaller, the same as those of ``.sprd``. Lanczos resizes it."""

_LOOK_AHEAD = 4
"""How many qualities above the best fitting one are tried, too, because files do not always grow with
quality."""
_WELL_USED = 0.97
_NEAR = 1.05
_TRIALS = 8
_LEAST_GROWTH = 0.01
_USUAL_BPP = 0.3
"""The rate in bits per coded pixel near which the best factor of ordinary codecs usually lies."""

Key = tuple[float, Quality]


@dataclass(frozen=True)
class Choice:
    """The best file that was found.

    Attributes:
        data: the whole file, at most as large as the budget.
        decoded: the picture decoded from `data` at the original's size, uint8 RGB [H, W, 3].
        setting: the arguments of `ImageCodec.encode_at`, such as ``{"quality": 23, "factor": 1.5}``.
        ms_ssim: the MS-SSIM of `decoded`, 0-1.
    """

    data: bytes
    decoded: Bytes
    setting: Setting
    ms_ssim: float

    @property
    def rank(self) -> tuple[float, int]:
        """The order of choices: a higher MS-SSIM is better, then a smaller file."""
        return self.ms_ssim, -len(self.data)


@dataclass
class Trials:
    """What is known about one image and one codec; all budgets of the image share it.

    Attributes:
        files: whole files by factor and quality.
        scores: the MS-SSIM of files that have been among the best, by factor and quality.
        smallest: the size of the smallest file so far in bytes; None before the first.
    """

    files: dict[Key, bytes] = field(default_factory=dict)
    scores: dict[Key, float] = field(default_factory=dict)
    smallest: int | None = None

    def met(self, size: int) -> None:
        """Remember the size of a file."""
        self.smallest = size if self.smallest is None else min(self.smallest, size)


def best_at(
    codec: ImageCodec, pixels: Bytes, budget_bytes: int, trials: Trials | None = None
) -> Choice | None:
    """Find the file of at most `budget_bytes` with the highest MS-SSIM, over qualities and `FACTORS`.

    The decoder is told the original's size and the factor for free. This favours all codecs but sprdiff,
    whose files contain both. A `BudgetCodec` uses its own rate control instead.

    Args:
        codec: the codec.
        pixels: the picture, uint8 RGB [H, W, 3]; both sides have at least 161 pixels (see `metrics.ms_ssim`).
        budget_bytes: the largest size of the whole file, headers included.
        trials: what is known about this image and codec; None: nothing.

    Returns:
        The choice; None if even the smallest file is larger. Then ``trials.smallest`` is its size in bytes.

    Raises:
        CodecError: the codec failed.
        ImageError: the picture is too small for MS-SSIM.
    """
    trials = Trials() if trials is None else trials
    if isinstance(codec, BudgetCodec):
        return _by_rate_control(codec, pixels, budget_bytes, trials)
    images = {factor: _Image(codec, pixels, factor, trials) for factor in _factors(pixels)}
    keys = [(factor, quality) for factor, image in images.items() for quality in image.fitting(budget_bytes)]
    best: Choice | None = None
    for factor, quality in sorted(keys, key=lambda key: _unlikely(key[0], pixels, budget_bytes)):
        found = images[factor].choice(quality, -math.inf if best is None else best.ms_ssim)
        # Of equal files the smaller one wins, so that the result does not depend on the order of trials.
        if found is not None and (best is None or found.rank > best.rank):
            best = found
    return best


def _unlikely(factor: float, pixels: Bytes, budget: int) -> float:
    """Return how far a factor is from the usual best: if a good score is found early, more trials can be
    skipped."""
    height, width = size_of(pixels)
    return abs(math.log(8 * budget * factor**2 / (height * width * _USUAL_BPP)))


def _by_rate_control(codec: BudgetCodec, pixels: Bytes, budget: int, trials: Trials) -> Choice | None:
    try:
        data, setting = codec.encode_to(pixels, budget)
    except TargetError as error:
        trials.met(error.smallest)
        return None
    trials.met(len(data))
    decoded = codec.decode_at(data, setting, size_of(pixels))
    return Choice(data, decoded, setting, ms_ssim(pixels, decoded))


def _factors(pixels: Bytes) -> list[float]:
    """Return the factors that give pictures of different sizes."""
    sizes = {coded_size(size_of(pixels), factor): factor for factor in reversed(FACTORS)}
    return sorted(sizes.values())


class _Image:
    """One picture at one factor, encoded at the qualities that the search tries."""

    def __init__(self, codec: ImageCodec, pixels: Bytes, factor: float, trials: Trials) -> None:
        self._codec, self._pixels, self._factor, self._trials = codec, pixels, factor, trials

    def size(self, quality: Quality) -> int:
        """Return the size of the whole file in bytes."""
        key = (self._factor, quality)
        if key not in self._trials.files:
            self._trials.files[key] = self._codec.encode_at(self._pixels, self._setting(quality))
            self._trials.met(len(self._trials.files[key]))
        return len(self._trials.files[key])

    def choice(self, quality: Quality, least: float) -> Choice | None:
        """Return the file with its decoded picture and MS-SSIM; None if that is less than `least`."""
        key = (self._factor, quality)
        if self._trials.scores.get(key, least) < least:
            return None
        decoded = self._decoded(quality)
        if key not in self._trials.scores:
            score = ms_ssim_from(self._pixels, decoded, least)
            if score is None:
                return None
            self._trials.scores[key] = score
        return Choice(self._trials.files[key], decoded, self._setting(quality), self._trials.scores[key])

    def fitting(self, budget: int) -> list[Quality]:
        """Return the best qualities whose files fit; an empty list if not even the first few do."""
        qualities = self._codec.qualities
        low = self._last_fitting(qualities, budget)
        if low is None:
            return []
        found = [qualities[low]]
        after = qualities[low + 1 : low + 1 + _LOOK_AHEAD]
        # If the next file is far too large, no later one fits: sizes fluctuate by a few percent only.
        if (
            after
            and self.size(qualities[low]) < _WELL_USED * budget
            and self.size(after[0]) <= _NEAR * budget
        ):
            found += [q for q in after[1:] if self.size(q) <= budget]
        return found

    def _last_fitting(self, qualities: Sequence[Quality], budget: int) -> int | None:
        """Return an index that fits, while the next does not or there is none; None if neither of the first
        two fits.

        Sizes grow about geometrically, so the next quality to try is extrapolated from the last two. Large
        files, which take longest to encode, are therefore rarely made. If this does not converge, bisection
        does.
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
            ahead = (
                math.log(budget / self.size(qualities[low])) / growth
                if trials <= _TRIALS
                else (high - low) / 2
            )
            trial = low + min(max(1, int(ahead)), max(1, high - low - 1))
        return low

    def _growth(self, qualities: Sequence[Quality], i: int, j: int) -> float:
        """Return how much the logarithm of the size grows from one quality to the next; always a little."""
        sizes = self.size(qualities[i]), self.size(qualities[j])
        return max(math.log(sizes[1] / sizes[0]) / (j - i), _LEAST_GROWTH)

    def _decoded(self, quality: Quality) -> Bytes:
        data = self._trials.files[self._factor, quality]
        return self._codec.decode_at(data, self._setting(quality), size_of(self._pixels))

    def _setting(self, quality: Quality) -> Setting:
        return {"quality": quality, "factor": self._factor}
