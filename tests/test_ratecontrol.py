"""Tests of rate control as pure functions: levels, scales, and the search for the level that fits."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprdiff.format.container import SCALES, scaled_side
from sprdiff.options import quality_level, scale_code
from sprdiff.ratecontrol import candidate_scales, first_guess, highest_fitting, wanted_bpp


@pytest.mark.parametrize(
    ("quality", "level"), [(0, 0), (100, 255), (50, 128), (0.19, 0), (0.2, 1), (99.9, 255)]
)
def test_quality_is_a_level(quality: float, level: int) -> None:
    assert quality_level(quality) == level


@pytest.mark.parametrize("quality", [-0.001, 100.001, math.nan, math.inf, -math.inf])
def test_quality_outside_its_range(quality: float) -> None:
    with pytest.raises(ValueError, match="quality must be from 0 to 100"):
        quality_level(quality)


def test_scales_are_numbers_or_their_text() -> None:
    assert [scale_code(s) for s in (1, 1.5, 2, "3", "4.0", "1.5", 8)] == [0, 1, 2, 3, 4, 1, 6]
    assert scale_code("auto") is None


@pytest.mark.parametrize("scale", [0, 5, 1.25, "big", "", math.nan, math.inf, "1/0"])
def test_no_other_scales(scale: float) -> None:
    with pytest.raises(ValueError, match=r"scale must be auto or one of 1, 1\.5, 2, 3, 4, 6, 8"):
        scale_code(scale)


def test_the_scale_follows_from_the_target() -> None:
    assert candidate_scales(768, 512, 983)[0] == 0  # 0.02 bpp
    assert SCALES[candidate_scales(4000, 3000, 1200)[0]] == 4  # a phone photo into 1,200 bytes
    assert candidate_scales(4000, 3000, 20) == [6]
    by_rate = [
        SCALES[candidate_scales(768, 512, int(bpp * 768 * 512 / 8))[0]] for bpp in (0.0119, 0.0100, 0.0075)
    ]
    assert by_rate == [1, Fraction(3, 2), 2]
    assert candidate_scales(1, 1, 0) == [0]  # no picture is smaller than this one
    assert candidate_scales(768, 512, 10**9) == list(range(7))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 10**5))
def test_scales_to_try(width: int, height: int, limit: int) -> None:
    codes = candidate_scales(width, height, limit)
    sizes = [scaled_side(width, code) * scaled_side(height, code) for code in codes]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(codes) == 1 or 8 * limit >= wanted_bpp(codes[0]) * sizes[0]
    if codes[0] > 0:
        finer = scaled_side(width, codes[0] - 1) * scaled_side(height, codes[0] - 1)
        assert 8 * limit < wanted_bpp(codes[0] - 1) * finer or finer == sizes[0]


@given(
    st.floats(20, 1e6),
    st.floats(1.1, 200),
    st.integers(0, 10**8),
    st.integers(0, 255),
    st.floats(0, 3),
    st.integers(0, 6),
)
def test_the_level_found_fits_and_the_next_does_not(
    least: float, span: float, limit: int, guess: int, ripple: float, phase: int
) -> None:
    def size(level: int) -> int:
        wave = ripple * math.sin(level * 1.7 + phase)
        return max(1, round(least * span ** (level / 255) + wave))

    level = highest_fitting(size, limit, guess)
    if level is None:
        assert size(0) > limit
    else:
        assert size(level) <= limit
        assert level == 255 or size(level + 1) > limit


@given(st.integers(300, 5000), st.floats(8, 40), st.floats(0.01, 1))
def test_few_trials(least: int, span: float, share: float) -> None:
    tried = []

    def size(level: int) -> int:
        tried.append(level)
        return round(least * span ** (level / 255))

    limit = round(least * span**share)
    level = highest_fitting(size, limit, first_guess(limit, 8 * least * 250))
    assert level is not None
    assert len(set(tried)) <= 7


@given(st.integers(200, 5000), st.floats(60, 600), st.floats(0.6, 1.7), st.floats(0.02, 1), st.floats(0.3, 3))
def test_few_trials_where_levels_span_a_wide_range(
    least: int, span: float, bend: float, share: float, surprise: float
) -> None:
    """Levels are 60 to 600 times apart in bytes, on a bent curve, and the first guess is off by a factor of
    3."""
    tried = set()

    def size(level: int) -> int:
        tried.add(level)
        return round(least * span ** ((level / 255) ** bend))

    limit = round(least * span**share)
    level = highest_fitting(size, limit, first_guess(limit, round(8 * least * 250 * surprise)))
    assert level is not None and size(level) <= limit
    assert level == 255 or size(level + 1) > limit
    assert len(tried) <= 11


def test_a_dip_beyond_the_next_level_is_found_when_much_is_left() -> None:
    sizes = [100, 940, 1010, 990, 1030, *[2000] * 251]
    assert highest_fitting(sizes.__getitem__, 1000, 0) == 3
    assert highest_fitting(sizes.__getitem__, 960, 0) == 1


def test_first_guesses_are_levels() -> None:
    assert [first_guess(limit, 1) for limit in (0, 10**9)] == [255, 255]
    assert first_guess(0, 10**9) == 0
