"""Rate control: the highest level whose file fits, and the scale to code a picture at.

Only sizes of real files are compared, so a target is a promise. Sizes are close to exponential in the level:
interpolating their logarithms finds the level in four to six trials where bisection takes eight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from .format.constants import LEVELS
from .format.container import SCALES, scaled_side

CODED_BPP = 0.0115
"""A picture is coded smaller until a target gives this many bits to each coded pixel."""
STEP_BPP = 0.018
"""The same for the factor 1.5: it is so near to 2 that it pays on a short stretch only
(`benchmarks/scale.py`)."""

_GROWTH = math.log(20.0) / (LEVELS - 1)
"""Typical step of ln(size) from level to level; only the first guesses depend on it."""
_LOWEST_BPP = 0.004
"""Typical bits per coded pixel at level 0; likewise."""
_STEEPEST = 3.0
"""How many times the typical step, or what part of it, is believed of two sizes on one side of the target."""
_GUESSES = 9
"""Trials after which the search only halves, which is sure to end soon."""
_WELL_USED = 0.97
_LOOK_AHEAD = 5

Size = Callable[[int], int]


def candidate_scales(width: int, height: int, limit: int) -> list[int]:
    """Scale codes to try for a target of `limit` bytes, in this order: the smallest factor that gives every
    coded pixel its `wanted_bpp` (or else the largest factor), then all larger ones.

    Factors that give a picture no smaller than the factor before are left out.
    """
    sizes = {(scaled_side(height, code), scaled_side(width, code)): code for code in reversed(range(len(SCALES)))}
    codes = sorted(sizes.items(), key=lambda item: item[1])
    rich = [code for (rows, columns), code in codes if 8 * limit >= wanted_bpp(code) * rows * columns]
    first = rich[0] if rich else codes[-1][1]
    return [code for _, code in codes if code >= first]


def wanted_bpp(code: int) -> float:
    """Return the bits for each coded pixel from which on the scale with this code is picked before any larger factor."""
    return STEP_BPP if SCALES[code] == Fraction(3, 2) else CODED_BPP


def first_guess(limit: int, coded_pixels: int) -> int:
    """Return a level near the one that fits into `limit` bytes."""
    bpp = 8 * max(limit, 1) / coded_pixels
    return max(0, min(LEVELS - 1, round(math.log(bpp / _LOWEST_BPP) / _GROWTH)))


def highest_fitting(size: Size, limit: int, guess: int = LEVELS // 2) -> int | None:
    """Return a level whose size is at most `limit` while that of the next level is not (or there is none).

    Args:
        size: bytes of the file at a level; nearly, but not strictly, growing. Called again for known levels.
        limit: in bytes.
        guess: level to try first.

    Returns:
        The level; None when no level tried fits, level 0 among them.
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
        # Trials in a row on this side of the target, counted up or down.
        streak = max(streak, 0) + 1 if fits else min(streak, 0) - 1
        level = (low + high) // 2 if trial >= _GUESSES else _interpolate(known, low, high, limit, streak)
    return None if low < 0 else _look_ahead(size, limit, low)


def _interpolate(known: Mapping[int, int], low: int, high: int, limit: int, streak: int) -> int:
    """Return the level between `low` and `high` where ln(size) should just stay below ln(limit).

    Where the curve bends, a straight line between both keeps falling short on one side: after two trials
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
        found += 1  # one too high bounds the search from above; one too low would leave it open
    return max(low + 1, min(high - 1, found))


def _look_ahead(size: Size, limit: int, level: int) -> int:
    """Return where sizes are not monotonic and much of the target is unused, a level a little higher may fit too."""
    if size(level) >= _WELL_USED * limit:
        return level
    best = level
    for further in range(level + 2, min(level + _LOOK_AHEAD, LEVELS)):
        if size(further) <= limit:
            best = further
    while best > level and best + 1 < LEVELS and size(best + 1) <= limit:
        best += 1
    return best
