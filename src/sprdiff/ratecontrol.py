"""Rate control: the highest level whose file fits, and the scale at which a picture is coded.

Only sizes of real files are compared, so a target is always kept. Sizes grow about exponentially with the
level, so interpolation of their logarithms finds it in four to six trials, where bisection takes eight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np

from .format.constants import LEVELS
from .format.container import SCALES, scaled_side

CODED_BPP = 0.0115
"""A picture is coded smaller until the target gives this many bits to each coded pixel."""
STEP_BPP = 0.018
"""The same for the factor 1.5, which is so close to 2 that it pays in a short range only
(`benchmarks/scale.py`)."""

_TYPICAL_BPP = (0.0034, 0.0059, 0.0108, 0.0178, 0.0274, 0.0388, 0.0511, 0.0635, 0.0783)
"""The typical number of bits per coded pixel at levels 0, 32 … 224, 255 (geometric means of 11 photographs of
the validation sets); only the first guesses depend on it."""
_KNOTS = [*range(0, LEVELS - 1, 32), LEVELS - 1]
_GROWTH = math.log(_TYPICAL_BPP[-1] / _TYPICAL_BPP[0]) / (LEVELS - 1)
"""The typical step of ln(size) from level to level."""
_STEEPEST = 3.0
"""The slope between two sizes on one side of the target is limited to this multiple, or fraction, of the
typical step."""
_GUESSES = 9
"""The number of trials after which the search only bisects, which is sure to end soon."""
_WELL_USED = 0.97
_LOOK_AHEAD = 5

Size = Callable[[int], int]


def candidate_scales(width: int, height: int, limit: int) -> list[int]:
    """Return the scale codes to try for a target of `limit` bytes, in this order: the smallest factor that
    gives every coded pixel its `wanted_bpp` (or else the largest factor), then all larger ones.

    Factors that give a picture no smaller than the factor before are left out.
    """
    sizes = {
        (scaled_side(height, code), scaled_side(width, code)): code for code in reversed(range(len(SCALES)))
    }
    codes = sorted(sizes.items(), key=lambda item: item[1])
    rich = [code for (rows, columns), code in codes if 8 * limit >= wanted_bpp(code) * rows * columns]
    first = rich[0] if rich else codes[-1][1]
    return [code for _, code in codes if code >= first]


def wanted_bpp(code: int) -> float:
    """Return the bits per coded pixel from which on the scale with this code is preferred to all larger
    factors."""
    return STEP_BPP if SCALES[code] == Fraction(3, 2) else CODED_BPP


def first_guess(limit: int, coded_pixels: int) -> int:
    """Return a level near the one that fits into `limit` bytes."""
    bpp = 8 * max(limit, 1) / coded_pixels
    return round(np.interp(math.log(bpp), np.log(_TYPICAL_BPP), _KNOTS))


def highest_fitting(size: Size, limit: int, guess: int = LEVELS // 2) -> int | None:
    """Return a level whose size is at most `limit`, while that of the next level is not (or there is none).

    Args:
        size: the size of the file at a level in bytes; it nearly, but not strictly, grows. It may be asked
            twice.
        limit: the limit in bytes.
        guess: the level that is tried first.

    Returns:
        The level; None if no level that was tried fits, not even level 0.
    """
    known: dict[int, int] = {}
    low, high = -1, LEVELS
    level, streak = guess, 0
    for trial in range(LEVELS):
        known[level] = size(level)
        fits = known[level] <= limit
        low, high = (level, high) if fits else (low, level)
        if high - low == 1:
            break
        # How many trials in a row were on this side of the target, counted up or down.
        streak = max(streak, 0) + 1 if fits else min(streak, 0) - 1
        level = (low + high) // 2 if trial >= _GUESSES else _interpolate(known, low, high, limit, streak)
    return None if low < 0 else _look_ahead(size, limit, low)


def _interpolate(known: Mapping[int, int], low: int, high: int, limit: int, streak: int) -> int:
    """Return the level between `low` and `high` where ln(size) should be just below ln(limit).

    Where the curve bends, a straight line between both keeps falling short on one side. After two trials
    there (`streak` is 2 or -2) the level moves on by one, after three by two, by four ...
    """
    push = 0
    if low in known and high in known:
        push = int(math.copysign(2 ** (abs(streak) - 2), streak)) if abs(streak) > 1 else 0
        base, slope = low, math.log(known[high] / known[low]) / (high - low)
    else:
        base, slope = (low if low in known else high), _GROWTH
        if len(known) > 1:
            older, newer = list(known)[-2:]
            slope = math.log(known[newer] / known[older]) / (newer - older)
            slope = min(max(slope, _GROWTH / _STEEPEST), _STEEPEST * _GROWTH)
    found = math.floor(base + (math.log(max(limit, 1)) - math.log(known[base])) / slope) + push
    if high not in known:
        found += 1  # a level that is too high bounds the search; one that is too low would leave it open
    return max(low + 1, min(high - 1, found))


def _look_ahead(size: Size, limit: int, level: int) -> int:
    """Return a better level: where sizes are not monotonic and much of the target is unused, a higher one
    may fit, too."""
    if size(level) >= _WELL_USED * limit:
        return level
    best = level
    for further in range(level + 2, min(level + _LOOK_AHEAD, LEVELS)):
        if size(further) <= limit:
            best = further
    while best > level and best + 1 < LEVELS and size(best + 1) <= limit:
        best += 1
    return best
