"""Tests of intervals, Bjøntegaard deltas and published curves against known values."""

from __future__ import annotations

import math

import pytest

from sprdiff.evaluate.report import bd
from sprdiff.evaluate.report.intervals import Interval, mean_interval, paired_interval
from sprdiff.evaluate.report.published import KODAK, is_kodak, published_for

# Intervals


def test_interval_of_a_worked_example() -> None:
    # NIST e-Handbook's way: mean 5, s = 2, n = 9, t(0.975, 8) = 2.306 from the table.
    found = mean_interval([5 - 2 * math.sqrt(4 / 3)] * 3 + [5.0] * 3 + [5 + 2 * math.sqrt(4 / 3)] * 3)
    assert found is not None
    assert found.mean == pytest.approx(5) and found.n == 9
    assert found.half == pytest.approx(2.306 * 2 / 3, abs=5e-4)


def test_interval_of_two_values_uses_one_degree_of_freedom() -> None:
    found = mean_interval([0.0, 2.0])
    assert found is not None and found.half == pytest.approx(12.706, abs=5e-4)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert mean_interval([3.0]) == Interval(3.0, None, 1)
    assert mean_interval([]) is None


def test_paired_interval_takes_the_images_of_both() -> None:
    a = {"x": 10.0, "y": 20.0, "z": 30.0, "only a": 99.0}
    b = {"x": 9.0, "y": 18.0, "z": 27.0, "only b": -99.0}
    found = paired_interval(a, b)
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)  # t(0.975, 2)


def test_a_tie_is_an_interval_that_holds_zero() -> None:
    assert Interval(-0.5, 0.6, 9).holds_zero
    assert not Interval(-0.5, 0.4, 9).holds_zero
    assert Interval(0.0, 0.0, 9).holds_zero
    assert not Interval(0.0, None, 1).holds_zero


# Bjøntegaard deltas

# The pair of curves that the package's own page uses; kbit/s and dB.
ANCHOR = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)]
TEST = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)]


def test_deltas_of_a_known_pair_of_curves() -> None:
    # Evaluated apart from any library: Fritsch and Carlson's slopes, Simpson's rule on the cubic pieces.
    assert bd.bd_rate(ANCHOR, TEST, higher_is_better=True).value == pytest.approx(-4.417485350594, abs=1e-8)
    assert bd.bd_quality(ANCHOR, TEST, higher_is_better=True).value == pytest.approx(0.119692785425, abs=1e-8)


def test_the_order_of_points_does_not_matter() -> None:
    assert bd.bd_rate(ANCHOR[::-1], [TEST[i] for i in (2, 0, 3, 1)], higher_is_better=True) == bd.bd_rate(
        ANCHOR, TEST, higher_is_better=True
    )


def test_a_curve_of_scaled_rates_gives_the_scale() -> None:
    scaled = [(0.8 * rate, quality) for rate, quality in ANCHOR]
    found = bd.bd_rate(ANCHOR, scaled, higher_is_better=True)
    assert found.value == pytest.approx(-20.0) and not found.reason


def test_a_curve_of_shifted_quality_gives_the_shift() -> None:
    shifted = [(rate, quality - 0.75) for rate, quality in ANCHOR]
    assert bd.bd_quality(ANCHOR, shifted, higher_is_better=True).value == pytest.approx(-0.75)


def test_lower_is_better_keeps_the_meaning_of_the_rate_and_the_direction_of_the_metric() -> None:
    anchor = [(0.01, 0.40), (0.02, 0.30), (0.03, 0.25), (0.04, 0.22)]
    cheaper = [(rate / 2, figure) for rate, figure in anchor]
    worse = [(rate, figure + 0.05) for rate, figure in anchor]
    assert bd.bd_rate(anchor, cheaper, higher_is_better=False).value == pytest.approx(-50.0)
    assert bd.bd_quality(anchor, worse, higher_is_better=False).value == pytest.approx(0.05)
    rate = bd.bd_rate(anchor, worse, higher_is_better=False).value
    assert rate is not None and rate > 0


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (ANCHOR[:2], "fewer than 3 rates"),
        ([(rate, quality + 20) for rate, quality in ANCHOR], "no quality that both reach"),
        (
            [(1000.0, 35.0), (2000.0, 36.0), (3000.0, 35.5), (4000.0, 37.0)],
            "quality does not rise with every rate",
        ),
        ([(1000.0, 35.0), (2000.0, math.nan), (3000.0, 36.0)], "a rate or a figure is not usable"),
    ],
)
def test_where_there_is_no_delta_the_reason_is_said(curve: bd.Curve, reason: str) -> None:
    assert bd.bd_rate(ANCHOR, curve, higher_is_better=True) == bd.Delta(None, reason)
    assert bd.bd_rate(curve, ANCHOR, higher_is_better=True) == bd.Delta(None, reason)


def test_no_common_rate_gives_no_delta_of_quality() -> None:
    apart = [(rate / 1000, quality) for rate, quality in ANCHOR]
    assert bd.bd_quality(ANCHOR, apart, higher_is_better=True) == bd.Delta(None, "no rate that both have")


def test_three_rates_and_a_small_overlap_are_said() -> None:
    three = bd.bd_rate(ANCHOR[:3], TEST[:3], higher_is_better=True)
    assert three.value is not None and three.reason == "from 3 rates only"
    far = [(rate, quality + 3.5) for rate, quality in ANCHOR]
    assert bd.bd_rate(ANCHOR, far, higher_is_better=True).reason == "from less than half of the joint range"


# Published curves


def test_published_curves_are_whole_ordered_and_sourced() -> None:
    for curve in KODAK:
        assert len(curve.rates) == len(curve.values) and curve.rates == tuple(sorted(curve.rates))
        assert curve.source and curve.accuracy
        better = curve.values if curve.metric in ("psnr", "ms_ssim") else [-value for value in curve.values]
        assert list(better) == sorted(better), f"{curve.codec} {curve.metric} does not improve with the rate"
    assert {"SPRDiff (paper)", "StableCodec", "AEIC-ME", "OneDC"} == {curve.codec for curve in KODAK}


def test_every_published_lpips_warns_of_its_backbone() -> None:
    lpips = [curve for curve in KODAK if curve.metric.startswith("lpips")]
    assert {curve.metric for curve in lpips} == {"lpips_alex", "lpips_vgg"}
    assert all("backbone" in curve.warning for curve in lpips)


def test_published_curves_belong_to_kodak_only() -> None:
    assert is_kodak(["kodim01.png", "KODIM24.webp"])
    assert (
        not is_kodak(["kodim01.png", "other.png"]) and not is_kodak([]) and not is_kodak(["kodim01.png.bak"])
    )
    assert published_for("ms_ssim", ["kodim01.png"]) and not published_for("ms_ssim", ["mine.png"])
    assert not published_for("ssimulacra2", ["kodim01.png"])
