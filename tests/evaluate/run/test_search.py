"""Tests of the best file within a budget, compared with trying everything."""

from __future__ import annotations

import numpy as np
import pytest

from codec_helpers import Budgeted, Coarse, Wrong
from conftest import photo
from sprdiff.errors import ImageError
from sprdiff.evaluate.codecs.base import CodecError, Setting, coded_size, size_of
from sprdiff.evaluate.metrics.distortion import Bytes, ms_ssim
from sprdiff.evaluate.run import search
from sprdiff.evaluate.run.search import FACTORS, Choice, Trials, best_at
from sprdiff.imageio.resize import resize

SIDE = (200, 232)


def likeness(a: Bytes, b: Bytes) -> float:
    """Return a likeness in place of MS-SSIM, which would take most of the time of these tests."""
    return 1.0 - float(np.abs(a.astype(np.float64) - b).mean()) / 255.0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Bytes:
    """Make a picture that is too small for MS-SSIM."""
    monkeypatch.setattr(search, "ms_ssim_from", lambda a, b, least: likeness(a, b))
    return photo(72, 96, seed=3)


@pytest.fixture(scope="module")
def pixels() -> Bytes:
    return photo(*SIDE, seed=3)


def all_files(codec: Coarse, pixels: Bytes) -> dict[tuple[float, int], int]:
    """Return the bytes of every possible file."""
    settings = [(factor, quality) for factor in FACTORS for quality in range(1, codec.last + 1)]
    return {
        (factor, quality): len(codec.encode_at(pixels, {"quality": quality, "factor": factor}))
        for factor, quality in settings
    }


def best_of_all(codec: Coarse, pixels: Bytes, budget: int) -> float:
    """Return the likeness of the best of all files that fit."""
    scores = []
    for (factor, quality), size in all_files(codec, pixels).items():
        setting: Setting = {"quality": quality, "factor": factor}
        if size <= budget:
            decoded = codec.decode_at(codec.encode_at(pixels, setting), setting, size_of(pixels))
            scores.append(likeness(pixels, decoded))
    return max(scores)


@pytest.mark.parametrize("budget", [900, 2500, 12000])
def test_no_file_that_fits_is_much_better(small: Bytes, budget: int) -> None:
    codec = Coarse(last=12)
    choice = best_at(codec, small, budget)
    assert choice is not None and len(choice.data) <= budget
    assert choice.ms_ssim == pytest.approx(best_of_all(codec, small, budget), abs=0.002)


def test_a_choice_says_how_it_was_made(pixels: Bytes) -> None:
    codec = Coarse()
    choice = best_at(codec, pixels, 3000)
    assert choice is not None
    assert codec.encode_at(pixels, choice.setting) == choice.data
    assert choice.decoded.shape == pixels.shape and choice.decoded.dtype == np.uint8
    assert np.array_equal(codec.decode_at(choice.data, choice.setting, size_of(pixels)), choice.decoded)
    assert choice.ms_ssim == ms_ssim(pixels, choice.decoded)


def test_what_is_given_up_early_would_not_have_won(pixels: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = (900, 3000, 12000)
    found = [best_at(Coarse(last=12), pixels, budget) for budget in budgets]
    whole: list[float] = []

    def patient(a: Bytes, b: Bytes, least: float) -> float:
        whole.append(ms_ssim(a, b))
        return whole[-1]

    monkeypatch.setattr(search, "ms_ssim_from", patient)
    for budget, choice in zip(budgets, found, strict=True):
        other = best_at(Coarse(last=12), pixels, budget)
        assert choice is not None and other is not None and len(whole) > 1
        assert (choice.setting, choice.data, choice.ms_ssim) == (other.setting, other.data, other.ms_ssim)
        assert other.ms_ssim == max(whole)
        whole.clear()


def test_small_budgets_take_smaller_pictures(small: Bytes) -> None:
    factors: list[float] = []
    for budget in (600, 8000, 1_000_000):
        choice = best_at(Coarse(), small, budget)
        assert choice is not None
        factors.append(float(choice.setting["factor"] or 0))
    assert factors == sorted(factors, reverse=True) and factors[0] != factors[-1] == 1


def test_a_budget_is_never_exceeded_where_sizes_jump(small: Bytes) -> None:
    odd = tuple((quality, 4000) for quality in range(3, 60, 2))
    for budget in (1500, 3000, 6000):
        choice = best_at(Coarse(odd=odd), small, budget)
        assert choice is not None and len(choice.data) <= budget


def test_a_quality_beyond_one_that_does_not_fit_is_found(pixels: Bytes) -> None:
    plain = Coarse(last=4)
    whole = len(plain.encode_at(pixels, {"quality": 4, "factor": 1}))
    before = len(plain.encode_at(pixels, {"quality": 3, "factor": 1}))
    jumpy = Coarse(last=4, odd=((3, whole - before + whole // 50),))
    choice = best_at(jumpy, pixels, whole)
    assert choice is not None
    assert choice.setting == {"quality": 4, "factor": 1}


def test_a_first_quality_that_is_larger_than_the_second(pixels: Bytes) -> None:
    jumpy = Coarse(last=2, odd=((1, 10**6),))
    choice = best_at(jumpy, pixels, 10**5)
    assert choice is not None and choice.setting["quality"] == 2


def test_a_budget_out_of_reach(small: Bytes) -> None:
    codec, cache = Coarse(), Trials()
    assert best_at(codec, small, 20, cache) is None
    assert cache.smallest == min(all_files(Coarse(last=2), small).values())
    assert best_at(codec, small, cache.smallest - 1, cache) is None
    choice = best_at(codec, small, cache.smallest, cache)
    assert choice is not None and len(choice.data) == cache.smallest


def test_a_file_is_encoded_once_for_all_budgets(small: Bytes) -> None:
    codec, cache = Coarse(), Trials()
    first = [best_at(codec, small, budget, cache) for budget in (1000, 2000, 4000)]
    assert len(codec.calls) == len(set(codec.calls)) == len(cache.files)
    again = [best_at(codec, small, budget, cache) for budget in (4000, 2000, 1000)]
    assert len(codec.calls) == len(cache.files)
    for one, other in zip(first, reversed(again), strict=True):
        assert one is not None and other is not None
        assert (one.data, one.setting, one.ms_ssim) == (other.data, other.setting, other.ms_ssim)


def test_what_was_asked_before_changes_nothing(small: Bytes) -> None:
    odd = tuple((quality, 700) for quality in range(2, 60, 3))
    cache = Trials()
    for budget in (5000, 1000, 3000):
        fresh, used = best_at(Coarse(odd=odd), small, budget), best_at(Coarse(odd=odd), small, budget, cache)
        assert isinstance(fresh, Choice) and isinstance(used, Choice)
        assert fresh.setting == used.setting


def test_few_files_are_tried(small: Bytes) -> None:
    codec = Coarse(last=1000)
    best_at(codec, small, 2500)
    assert len(codec.calls) < 25 * len(FACTORS)


def test_rate_control_of_its_own(pixels: Bytes) -> None:
    cache = Trials()
    choice = best_at(Budgeted(), pixels[:200, :200], 150, cache)
    assert choice is not None and len(choice.data) == 150 and choice.setting["level"] == 150
    assert choice.ms_ssim == ms_ssim(pixels[:200, :200], np.full((200, 200, 3), 150, np.uint8))
    cache = Trials()
    assert best_at(Budgeted(), pixels[:200, :200], 99, cache) is None
    assert cache.smallest == 100


def test_a_picture_too_small_to_judge() -> None:
    with pytest.raises(ImageError, match="161"):
        best_at(Coarse(), photo(100, 300), 2000)


@pytest.mark.parametrize(
    ("factor", "size"), [(1, (201, 333)), (1.5, (134, 222)), (2, (100, 166)), (3, (67, 111)), (400, (1, 1))]
)
def test_size_of_the_smaller_picture(factor: float, size: tuple[int, int]) -> None:
    assert coded_size((201, 333), factor) == size


def test_a_smaller_picture_is_resized_with_lanczos(pixels: Bytes) -> None:
    codec = Coarse(last=255)
    setting: Setting = {"quality": 255, "factor": 2}
    data = codec.encode_at(pixels, setting)
    small = resize(pixels, (100, 116))
    assert np.array_equal(codec.decode(data), small)
    assert np.array_equal(codec.decode_at(data, setting, SIDE), resize(small, SIDE))


def test_a_row_and_a_column_more_are_cut_off(pixels: Bytes) -> None:
    setting: Setting = {"quality": 255, "factor": 1}
    codec = Wrong(how="larger", last=255)
    assert np.array_equal(codec.decode_at(codec.encode_at(pixels, setting), setting, SIDE), pixels)


def test_a_picture_of_another_size_is_an_error(pixels: Bytes) -> None:
    setting: Setting = {"quality": 9, "factor": 1}
    codec = Wrong(how="size")
    with pytest.raises(CodecError, match="232 x 199 pixels where 232 x 200 were encoded"):
        codec.decode_at(codec.encode_at(pixels, setting), setting, SIDE)
