"""Tests of which codec is called best, what is called a tie, and of the tables that say so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import replace

from report_helpers import CODECS, METRICS, MS_SSIM, PSNR, RATES, figures, lost, make_run
from sprdiff.evaluate.report import comparisons
from sprdiff.evaluate.report.data import Metric, Results, budget, load
from sprdiff.evaluate.report.findings import best_other, sentences, verdict, worst_cases
from sprdiff.evaluate.results import ResultsError, Row, read_sets, write_sets
from sprdiff.evaluate.targets import Target


def metric(results: Results, name: str) -> Metric:
    return next(found for found in results.metrics if found.name == name)


def test_the_best_mean_wins_in_the_direction_of_the_metric(tmp_path: Path) -> None:
    results = load(make_run(tmp_path))
    best = {
        name: verdict(results, metric(results, name), Target(0.02)).best
        for name in ("psnr", "ms_ssim", "lpips_alex", "frechet")
    }
    assert best == {
        "psnr": "vvc",
        "ms_ssim": "sprdiff-tiny",
        "lpips_alex": "sprdiff-tiny",
        "frechet": "sprdiff-tiny",
    }


def test_pairs_decide_although_the_intervals_of_the_means_overlap(tmp_path: Path) -> None:
    results = load(make_run(tmp_path))
    found = verdict(results, metric(results, "psnr"), Target(0.02))
    first, second = found.means["vvc"], found.means["sprdiff-tiny"]
    assert first.half is not None and first.half > first.mean - second.mean
    assert found.ties == ()


def test_equal_codecs_tie(tmp_path: Path) -> None:
    results = load(make_run(tmp_path, figure=lambda codec, index, rate: figures("vvc", index, rate)))
    found = verdict(results, metric(results, "psnr"), Target(0.02))
    assert found.best == "sprdiff-tiny" and found.ties == ("vvc", "jpeg")


def test_one_image_or_one_figure_per_set_gives_no_ties(tmp_path: Path) -> None:
    results = load(
        make_run(tmp_path, images=["a.png"], figure=lambda codec, index, rate: figures("vvc", index, rate))
    )
    for name in ("psnr", "frechet"):
        assert verdict(results, metric(results, name), Target(0.02)).ties == ()


def test_a_codec_that_lacks_images_cannot_win(tmp_path: Path) -> None:
    def change(row: Row) -> Row:
        return lost(row) if (row.codec, row.image, row.target_bpp) == ("vvc", "a.png", 0.01) else row

    results = load(make_run(tmp_path, change=change))
    psnr = metric(results, "psnr")
    found = verdict(results, psnr, Target(0.01))
    assert found.best == "sprdiff-tiny" and found.means["vvc"].n == 3
    assert verdict(results, psnr, Target(0.02)).best == "vvc"
    assert len(results.curve("vvc", psnr)) == len(RATES) - 1
    names = {row[0].codec: row[0].small for row in comparisons.means(results, Target(0.01)).rows}
    assert names == {"sprdiff-tiny": "", "vvc": "3 of 4 pictures", "jpeg": ""}


def test_a_rate_that_nobody_has_whole_has_no_best(tmp_path: Path) -> None:
    missing = dict(zip(CODECS, ("a.png", "b.png", "c.png"), strict=True))
    results = load(
        make_run(tmp_path, change=lambda row: lost(row) if missing[row.codec] == row.image else row)
    )
    assert verdict(results, metric(results, "psnr"), Target(0.02)).best is None
    assert sentences(results, Target(0.02), "vvc") == [
        "No codec has every picture at this rate, so none is called best."
    ]
    assert comparisons.glance(results).rows[0][1].text == comparisons.DASH


def test_missing_figures_are_left_out(tmp_path: Path) -> None:
    def figure(codec: str, index: int, rate: float) -> dict[str, float | None]:
        return {**figures(codec, index, rate), "psnr": None if index == 0 else 30.0}

    results = load(make_run(tmp_path, figure=figure))
    assert verdict(results, metric(results, "psnr"), Target(0.02)).means["vvc"].n == 3
    everything = load(make_run(tmp_path / "2", figure=lambda *_: {"psnr": None, "ms_ssim": 0.5}))
    assert [found.name for found in everything.metrics] == ["ms_ssim", "frechet"]


def test_sentences_name_winners_and_the_losses_of_the_reference(tmp_path: Path) -> None:
    results = load(make_run(tmp_path))
    assert sentences(results, Target(0.02), "sprdiff-tiny") == [
        "sprdiff-tiny is best at MS-SSIM, LPIPS (Alex) and Fréchet distance.",
        "vvc is best at PSNR.",
        "sprdiff-tiny loses to vvc by 0.50 dB in PSNR.",
    ]
    assert sentences(results, Target(0.02), "vvc")[2:] == [
        "vvc loses to sprdiff-tiny by 0.0300 in MS-SSIM, 0.0300 in LPIPS (Alex) and 500 in Fréchet distance."
    ]


def test_the_reference_is_the_first_sprdiff_or_the_first(tmp_path: Path) -> None:
    assert load(
        make_run(tmp_path / "1", codecs=["vvc", "sprdiff-tiny@coarse", "sprdiff-tiny"])
    ).reference == ("sprdiff-tiny@coarse")
    assert load(make_run(tmp_path / "2", codecs=["vvc", "jpeg"])).reference == "vvc"


def test_the_other_codec_is_the_best_of_another_family(tmp_path: Path) -> None:
    codecs = ["sprdiff-tiny", "sprdiff-tiny@coarse", "vvc", "jpeg"]
    results = load(make_run(tmp_path, codecs=codecs))
    assert best_other(results, Target(0.02), "sprdiff-tiny", codecs) == "vvc"
    assert best_other(results, Target(0.02), "sprdiff-tiny", ["sprdiff-tiny@coarse", "jpeg"]) == "jpeg"
    assert best_other(results, Target(0.02), "sprdiff-tiny", codecs[:2]) is None


def test_worst_cases(tmp_path: Path) -> None:
    def figure(codec: str, index: int, rate: float) -> dict[str, float | None]:
        drop = 0.3 if (codec, index, rate) == ("jpeg", 2, 0.03) else 0.0
        gain = 0.1 if (codec, index, rate) == ("vvc", 3, 0.04) else 0.0
        return {"ms_ssim": 0.8 + rate - drop + gain - (0.01 if codec == "jpeg" else 0.0)}

    results = load(make_run(tmp_path, figure=figure, metrics=[MS_SSIM]))
    sprdiff, vvc, jpeg = worst_cases(results, metric(results, "ms_ssim"), "sprdiff-tiny")
    assert jpeg.lowest is not None and jpeg.lowest[:2] == ("c.png", Target(0.03))
    assert jpeg.loss is not None and (jpeg.loss[:2], jpeg.loss[3]) == (
        ("c.png", Target(0.03)),
        "sprdiff-tiny",
    )
    assert jpeg.loss[2] == pytest.approx(-0.31)
    assert vvc.loss is None
    assert sprdiff.loss is not None and (sprdiff.loss[:2], sprdiff.loss[3]) == (
        ("d.png", Target(0.04)),
        "vvc",
    )
    assert sprdiff.loss[2] == pytest.approx(-0.1)


def test_means_table_shows_interval_marks_and_real_rates(tmp_path: Path) -> None:
    results = load(make_run(tmp_path))
    table = comparisons.means(results, Target(0.02))
    assert table.head == ("codec", "bpp", "PSNR, dB ↑", "MS-SSIM ↑", "LPIPS (Alex) ↓", "Fréchet distance ↓")
    by_name = {row[0].codec: row for row in table.rows}
    assert by_name["vvc"][2].mark == comparisons.BEST and by_name["vvc"][2].small.startswith("± ")
    assert by_name["vvc"][1].text == f"{61 * 8 / (192 * 128):.4f}"  # bytes are whole: 61, not 61.44
    assert by_name["sprdiff-tiny"][5] == comparisons.Cell("2800", "", comparisons.BEST)


def test_differences_table_decides_by_pairs(tmp_path: Path) -> None:
    table = comparisons.differences(load(make_run(tmp_path)), Target(0.02), "sprdiff-tiny")
    vvc, jpeg = table.rows
    assert [cell.mark for cell in vvc[1:]] == [comparisons.BETTER, comparisons.WORSE, comparisons.WORSE, ""]
    assert vvc[1].text.startswith("+0.5") and jpeg[1].text.startswith("−")


def test_bd_table_has_values_and_reasons(tmp_path: Path) -> None:
    table = comparisons.deltas(load(make_run(tmp_path / "4")), "sprdiff-tiny")
    assert (
        table.rows[0][1].mark == comparisons.BETTER
        and " %" in table.rows[0][1].text
        and "dB" in table.rows[0][1].small
    )
    few = comparisons.deltas(load(make_run(tmp_path / "2", rates=(0.01, 0.02))), "sprdiff-tiny")
    assert few.rows[0][1].text == "n/a (a)" and few.notes == ("(a) fewer than 3 rates",)


def test_settings_are_counted_or_spanned(tmp_path: Path) -> None:
    results = load(make_run(tmp_path, metrics=[PSNR]))
    assert comparisons.settings(results).rows[0][1].text == "quality 20; factor 2"

    def spread(row: Row) -> Row:
        row.setting.update(quality={"a.png": 1, "b.png": 3, "c.png": 8, "d.png": 9}[row.image])
        row.setting.update(factor=1.5 if row.image == "a.png" else 2, tune="ssim")
        return row

    results = load(make_run(tmp_path / "2", change=spread))
    assert (
        comparisons.settings(results).rows[0][1].text
        == "quality 1 – 5.5 – 9; factor 2 (75%), 1.5 (25%); tune ssim"
    )


def test_reasons_of_missing_figures_of_sets_are_listed_once(tmp_path: Path) -> None:
    make_run(tmp_path)
    rows = [
        replace(found, metrics={"frechet": None}, notes={"frechet": "too few"})
        for found in read_sets(tmp_path)
    ]
    write_sets(tmp_path, rows)
    table = comparisons.skipped(load(tmp_path))
    assert table is not None
    assert [[cell.text for cell in line] for line in table.rows] == [
        ["fid", "96 patches: FID needs at least 5,000"],
        ["Fréchet distance", "too few"],
    ]


def test_budget_is_said_in_the_other_unit(tmp_path: Path) -> None:
    results = load(make_run(tmp_path))
    assert budget(results, Target(0.02)) == "at most 61 bytes a picture"
    assert budget(results, Target(0.5)) == "at most 1,536 bytes a picture"
    assert budget(results, Target(bytes=1200)) == "0.3906 bpp"
    images = [replace(info, width=info.width * (1 + i)) for i, info in enumerate(results.run.images)]
    several = dataclasses.replace(results, run=replace(results.run, images=images))
    assert budget(several, Target(0.5)) == "at most 1,536 to 6,144 bytes a picture"
    assert budget(several, Target(bytes=1200)) == "0.0977 to 0.3906 bpp"


def test_failures_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    images = [f"{i:02}.png" for i in range(20)]
    results = load(
        make_run(tmp_path, images=images, change=lambda row: lost(row) if row.codec == "jpeg" else row)
    )
    table = comparisons.failures(results)
    assert table is not None and len(table.rows) == comparisons.SHOWN_FAILURES
    assert table.notes == (f"{20 * len(RATES) - comparisons.SHOWN_FAILURES} further rows are in rows.jsonl.",)
    assert comparisons.failures(load(make_run(tmp_path / "2"))) is None


def test_published_curves_are_listed_for_kodak_with_their_warnings(tmp_path: Path) -> None:
    assert comparisons.published(load(make_run(tmp_path / "1"))) is None
    table = comparisons.published(load(make_run(tmp_path / "2", images=["kodim01.png", "kodim02.png"])))
    assert table is not None
    stablecodec = next(row for row in table.rows if row[0].text == "StableCodec")
    assert stablecodec[1].text == "PSNR, MS-SSIM, LPIPS (Alex)" and "backbone" in stablecodec[3].text


def test_figures_are_written_with_four_digits_and_a_true_minus(tmp_path: Path) -> None:
    results = load(make_run(tmp_path))
    assert {found.name: found.digits for found in results.metrics} == {
        "psnr": 2, "ms_ssim": 4, "lpips_alex": 4, "frechet": 0,
    }  # fmt: skip
    assert metric(results, "psnr").with_unit(-1.234, signed=True) == "−1.23 dB"
    assert len(METRICS) == len(results.metrics)


def test_a_folder_without_rows_or_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"run\.json"):
        load(tmp_path)
    with pytest.raises(ResultsError, match="has no rows yet"):
        load(make_run(tmp_path, change=lambda row: None))
