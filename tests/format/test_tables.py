"""Tests of tables: exact counts, built, refitted, and reproduced to the last count by the range coder."""

from __future__ import annotations

import constriction
import numpy as np
import pytest

from spec_decoder import InvalidError, RangeDecoder
from sprdiff.errors import WeightsError
from sprdiff.format.native import categorical
from sprdiff.format.tables import TOTAL, Tables, fit_tables, make_gaussian_tables, sigma_ladder

RADIUS, COUNTS = make_gaussian_tables(sigma_ladder())


def each(tables: Tables) -> list[np.ndarray]:
    return [tables.counts[a:b].astype(np.int64) for a, b in zip(tables.start, tables.start[1:], strict=False)]


def test_the_ladder_is_geometric_from_a_tenth_to_32() -> None:
    ladder = sigma_ladder()
    assert len(ladder) == 64
    assert ladder[[0, -1]] == pytest.approx([0.1, 32])
    assert np.diff(np.log(ladder)) == pytest.approx(np.log(320) / 63)


def test_a_ladder_for_wide_rates() -> None:
    ladder = sigma_ladder(256, 0.05, 400)
    assert ladder[[0, -1]] == pytest.approx([0.05, 400])
    assert len(Tables(*make_gaussian_tables(ladder))) == 256
    for wrong in ((257, 0.1, 32), (0, 0.1, 32), (64, 0, 32), (64, 2, 1), (64, 0.1, 683), (64, 0.1, np.inf)):
        with pytest.raises(ValueError, match="no ladder of"):
            sigma_ladder(*wrong)


def test_gaussian_tables_are_exact_symmetric_and_never_dear() -> None:
    tables = Tables(RADIUS, COUNTS)
    for sigma, radius, counts in zip(sigma_ladder(), RADIUS, each(tables), strict=True):
        symbols, escape = counts[:-1], counts[-1]
        assert radius == np.ceil(6 * sigma) + 2
        assert counts.sum() == TOTAL
        assert (symbols == symbols[::-1]).all()
        assert np.diff(symbols[radius:]).max() <= 0
        assert 2**-20 <= escape / TOTAL <= 2**-18
        assert symbols.min() >= 4  # at most 22 bits


def test_gaussian_tables_cost_a_gaussian_its_entropy() -> None:
    tables = Tables(RADIUS, COUNTS)
    for sigma in (0.1, 1.0, 8.0, 32.0):
        t = int(np.abs(np.log(sigma_ladder() / sigma)).argmin())
        q = np.random.default_rng(t).normal(0, sigma_ladder()[t], 20000).round().astype(int)
        share = np.unique(q, return_counts=True)[1] / q.size
        cost = tables.cost[tables.start[t] + RADIUS[t] + q].mean()
        assert cost < -(share * np.log2(share)).sum() + 0.02


@pytest.mark.parametrize("table", range(0, 64, 7))
def test_the_range_coder_uses_exactly_the_counts(table: int) -> None:
    tables = Tables(RADIUS, COUNTS)
    counts = each(tables)[table].tolist()
    words = np.random.default_rng(table).integers(0, 2**32, 60, dtype=np.uint32)
    words[0] %= 2**32 - 2**16  # a code that some symbol has
    ours = RangeDecoder(words.astype(">u4").tobytes())
    theirs = constriction.stream.queue.RangeDecoder(words)
    for _ in range(100):
        try:
            wanted: int | None = ours.symbol(counts)
        except InvalidError:
            wanted = None
        if wanted is None:
            with pytest.raises(AssertionError):
                theirs.decode(tables.model(table, categorical), 1)
            break
        assert theirs.decode(tables.model(table, categorical), 1)[0] == wanted


@pytest.mark.parametrize("where", ["below", "at"])
def test_every_boundary_between_symbols_is_where_the_counts_put_it(where: str) -> None:
    tables = Tables(RADIUS, COUNTS)
    scale = (2**64 - 1) >> 24
    for table in (0, 20, 63):
        for symbol, start in enumerate(np.cumsum(each(tables)[table])[:-1].tolist()):
            point = scale * start - (where == "below")
            words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
            decoder = constriction.stream.queue.RangeDecoder(words)
            assert decoder.decode(tables.model(table, categorical), 1)[0] == symbol + (where == "at")


def test_refitting_without_data_keeps_the_base() -> None:
    radius, counts = fit_tables([np.zeros(2 * r + 2, np.int64) for r in RADIUS], (RADIUS, COUNTS))
    assert (radius == RADIUS).all()
    old, new = Tables(RADIUS, COUNTS), Tables(radius, counts)
    assert np.abs(new.counts.astype(np.int64) - old.counts).max() <= 4 * (2 * RADIUS.max() + 1)


def test_refitting_follows_much_data_and_is_symmetric() -> None:
    radius, counts = make_gaussian_tables([0.5, 2.0])
    rng = np.random.default_rng(0)
    histograms = []
    for r in radius:
        q = rng.laplace(0.4, 0.8, 200000).round().astype(int)
        inside = np.abs(q) <= r
        histograms.append(np.append(np.bincount(q[inside] + r, minlength=2 * r + 1), (~inside).sum()))
    fitted = Tables(*fit_tables(histograms, (radius, counts)))
    for histogram, new in zip(histograms, each(fitted), strict=True):
        share = (histogram[:-1] + histogram[-2::-1]) / 2 / histogram.sum()
        assert new[:-1] / TOTAL == pytest.approx(share, abs=2e-3)
        assert (new[:-1] == new[-2::-1]).all()
        assert new[-1] / TOTAL == pytest.approx(histogram[-1] / histogram.sum(), abs=2e-3)
    again = fit_tables(histograms, (radius, counts))[1]
    assert (again == fitted.counts).all()


def test_refitting_survives_extreme_histograms() -> None:
    radius, counts = make_gaussian_tables([32.0])
    for place in (0, int(radius[0]), 2 * int(radius[0]) + 1):
        histogram = np.zeros(2 * int(radius[0]) + 2, np.int64)
        histogram[place] = 2**40
        Tables(*fit_tables([histogram], (radius, counts)))


def test_refitting_refuses_histograms_of_another_shape() -> None:
    base = make_gaussian_tables([1.0])  # R = 8
    for wrong in ([np.zeros(5, np.int64)], [], [np.zeros(18, np.int64)] * 2, [np.full(18, -1)]):
        with pytest.raises(ValueError, match="histogram"):
            fit_tables(wrong, base)


def test_wrong_tables_are_refused() -> None:
    radius, counts = make_gaussian_tables([0.3, 1.0])
    poor = counts.copy()
    poor[0] -= 1
    empty = counts.copy()
    empty[:2] = 0, counts[:2].sum()
    for bad in (
        (radius.astype(np.int64), counts),
        (radius[:0], counts[:0]),
        (-radius, counts),
        (radius + 5000, counts),
        (radius, counts[:-1]),
        (radius, counts.astype(np.int64)),
        (radius, poor),
        (radius, empty),
    ):
        with pytest.raises(WeightsError, match=r"tables|counts"):
            Tables(*bad)
