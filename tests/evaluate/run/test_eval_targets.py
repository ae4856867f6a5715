"""Tests of targets: bits per pixel or bytes, in order, in words, and as names of folders."""

from __future__ import annotations

import math

import pytest

from sprdiff.evaluate.targets import Target


def test_budget() -> None:
    assert Target(0.0203).budget(768, 512) == 997  # 997.8 bytes: a promise is never rounded up
    assert Target(bytes=1200).budget(768, 512) == Target(bytes=1200).budget(2048, 1365) == 1200


def test_words_and_short_forms_say_which_unit_it_is() -> None:
    rate, size = Target(0.005), Target(bytes=1200)
    assert (str(rate), str(size)) == ("0.005 bpp", "1200 bytes")
    assert (rate.folder, size.folder) == ("0.005", "1200B")
    assert Target.parse("0.005") == rate and Target.parse("1200B") == size
    assert Target(1.0) != Target(bytes=1)


def test_order() -> None:
    targets = [Target(bytes=300), Target(0.5), Target(bytes=20), Target(0.02), Target(9.0)]
    assert sorted(targets) == [Target(0.02), Target(0.5), Target(9.0), Target(bytes=20), Target(bytes=300)]


@pytest.mark.parametrize(
    ("bpp", "size"),
    [(None, None), (0.5, 100), (0.0, None), (-1.0, None), (math.nan, None), (math.inf, None), (None, 0)],
)
def test_one_number_above_nought(bpp: float | None, size: int | None) -> None:
    with pytest.raises(ValueError, match="a number of bits per pixel or of bytes, above 0"):
        Target(bpp, size)


@pytest.mark.parametrize("text", ["", "B", "1.5B", "x", "1200 bytes", "nan", "0", "0B"])
def test_short_forms_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|invalid literal|a target is"):
        Target.parse(text)
