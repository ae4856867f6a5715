"""Tests of the published results: pictures, and tables in pages that are those of the published rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from conftest import photo
from docs_rules import ROOT, load_script
from report_helpers import FRECHET, MS_SSIM, PSNR, figures, keep_pictures, lost, make_run
from sprdiff.common.structs import to_json
from sprdiff.evaluate.codecs.registry import parse_codecs
from sprdiff.evaluate.report.data import load
from sprdiff.evaluate.results import Row, member, read_rows
from sprdiff.evaluate.targets import Target

results = load_script("results")

RATE = Target(0.02)
OURS = ("sprdiff-tiny", "sprdiff-tiny@coarse")
NAMED = replace(FRECHET, name="frechet_squeezenet")


@pytest.mark.parametrize("page", results.PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_tables_of_the_pages_are_those_of_the_published_results(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text == results.filled(text), "run python scripts/results.py pages"
    assert {found[3] for found in results.BLOCK.finditer(text)} == set(results.SETS), "both sets are shown"


@pytest.mark.parametrize("name", results.SETS)
def test_what_is_published_is_of_the_set(name: str) -> None:
    folder, chosen = results.PUBLISHED / name, results.SETS[name]
    published = load(folder)
    assert {str(rate.bpp) for rate in published.rates} == set(chosen.rates.split(","))
    assert not published.run.folder.startswith("/"), "where the originals lay is nobody's business"
    links = re.findall(r"\]\((pictures/[^)]+)\)", (folder / "pictures.md").read_text("utf-8"))
    assert len(links) >= len(chosen.picture_rates) * len(published.codecs)
    assert {f"pictures/{path.name}" for path in (folder / "pictures").iterdir()} == set(links)
    for path in (folder / "pictures").iterdir():
        with Image.open(path) as image:
            assert max(image.size) <= max(results.SHOWN)


def test_tables(tmp_path: Path) -> None:
    codecs = [*OURS, "jpeg", "vvc"]

    def figure(codec: str, index: int, rate: float) -> dict[str, float | None]:
        return figures({"sprdiff-tiny@coarse": "sprdiff-tiny"}.get(codec, codec), index, rate)

    made = make_run(tmp_path, codecs=codecs, metrics=[PSNR, MS_SSIM], rates=(0.02, 0.03), figure=figure)
    found = load(made)
    lines = results.means(found, RATE)
    assert (
        lines[0] == "| | PSNR, dB ↑ | MS-SSIM ↑ |" and lines[-1] == "4 pictures, at most 61 bytes a picture."
    )
    names = [line.split(" | ")[0] for line in lines[2:-2]]
    assert names == [
        "| **SPRDiff `tiny`**, decoded",
        "| **SPRDiff `tiny`**, `--realism 0`",
        "| VVC",
        "| JPEG",
    ]
    scores = {
        codec: found.mean(codec, RATE, metric) for codec in ("vvc", "jpeg") for metric in found.metrics[:1]
    }
    assert lines[4] == f"| VVC | **{scores['vvc']:.2f}** | .700 |"
    assert lines[2].endswith("| **.730** |"), "the best is bold, without the 0 before the point"
    (first, _, *rows) = results.best(found)
    assert first == "| at | best in PSNR | best in MS-SSIM |"
    assert rows[0].startswith(
        "| 0.02 bpp | VVC | **SPRDiff `tiny`**, decoded (tie with **SPRDiff `tiny`**, `--realism"
    )
    rows = results.against(found)[2:]
    assert (
        len(rows) == 4
        and rows[0].startswith("| 0.02 | decoded | −0.5")
        and rows[0].endswith("| +.030 | – | – |")
    )


def test_goals_stand_in_brackets_beside_what_was_reached(tmp_path: Path) -> None:
    def figure(codec: str, index: int, rate: float) -> dict[str, float | None]:
        vvc = {"psnr": 23.0, "ms_ssim": 0.79, "feature_distance": 6.0}
        return dict(vvc) if codec == "vvc" else {"psnr": 22.75, "ms_ssim": 0.801, "feature_distance": 4.8}

    feature = replace(PSNR, name="feature_distance", direction="down")
    made = make_run(
        tmp_path,
        codecs=[*OURS, "vvc"],
        metrics=[PSNR, MS_SSIM, feature],
        rates=(0.0138, 0.0203),
        figure=figure,
    )
    (first, second) = results.goals(load(made))[2:]
    assert first.startswith("| 0.0138 | 22.75 / .801 (21.96 / .752) | 0.80 (0.75) | – (0.45) | ")
    assert second == (
        "| 0.0203 | 22.75 / .801 (22.59 / .788) | 0.80 (0.75) | – (0.45) "
        "| \N{MINUS SIGN}0.25 / +.011 (\N{MINUS SIGN}0.10 / +.010) |"
    )


def test_the_card_has_a_row_for_each_reading_and_rate(tmp_path: Path) -> None:
    made = make_run(tmp_path, codecs=[*OURS, "vvc"], metrics=[PSNR, MS_SSIM], rates=(0.02, 0.03))
    rows = [line.split(" | ")[:2] for line in results.card(load(made))[2:]]
    assert rows == [
        ["| 0.02 bpp", "decoded"],
        ["| 0.02 bpp", "`--realism 0`"],
        ["| 0.03 bpp", "decoded"],
        ["| 0.03 bpp", "`--realism 0`"],
    ]


def test_the_table_of_time_and_memory_has_the_names_of_the_pages(tmp_path: Path) -> None:
    lines = results.costs(load(make_run(tmp_path, codecs=[*OURS, "vvc"], metrics=[PSNR, MS_SSIM])))
    assert lines[0] == "| | encode, s | decode, s | peak memory, MB |"
    assert lines[2] == "| **SPRDiff `tiny`**, decoded | 0.25 | 0.0125 | 100 |" and lines[4].startswith(
        "| VVC |"
    )
    assert lines[-1] == "Measured on a processor."


def test_published_figures_stand_below_ours_and_are_of_kodak_alone(tmp_path: Path) -> None:
    def table(images: list[str]) -> list[str]:
        made = make_run(
            tmp_path / images[0], images=images, codecs=[*OURS, "vvc"], metrics=[PSNR, MS_SSIM], rates=(0.02,)
        )
        return results.published(load(made), RATE)

    lines = table(["kodim01.png", "kodim02.png"])
    assert [line.split(" | ")[0] for line in lines[2:4]] == [f"| {results.NAMES[codec]}" for codec in OURS]
    assert all(line.endswith(" | measured here |") for line in lines[2:4])
    (stable,) = [line for line in lines if line.startswith("| StableCodec |")]
    assert stable.startswith("| StableCodec | .0203 | 22.30 | .774 |"), "its rate nearest to .02"
    assert not any("vvc" in line.lower() for line in lines)
    assert len(table(["a.png"])) == 4, "papers say nothing of other photographs"


def test_what_lacks_pictures_is_not_compared(tmp_path: Path) -> None:
    def change(row: Row) -> Row:
        return lost(row) if (row.codec, row.image) == ("vvc", "a.png") else row

    made = load(
        make_run(tmp_path, codecs=[*OURS, "vvc"], metrics=[PSNR, MS_SSIM], rates=(0.02,), change=change)
    )
    assert any(line.startswith("| VVC (3 of 4 pictures) | ") for line in results.means(made, RATE))
    assert results.against(made)[2] == "| 0.02 | decoded | – | – | – | – |"


def test_tables_go_between_their_marks_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_run(tmp_path / "kodak", codecs=[*OURS, "vvc"], metrics=[PSNR, MS_SSIM], rates=(0.02,))
    monkeypatch.setattr(results, "PUBLISHED", tmp_path)
    page = "before\n<!-- results: means kodak 0.02 -->\nold\n<!-- end -->\n"
    page += "between\n<!-- results: best kodak -->\n<!-- end -->\n"
    made = results.filled(page)
    assert made.startswith("before\n<!-- results: means kodak 0.02 -->\n\n| | PSNR") and "old" not in made
    assert "<!-- end -->\nbetween\n<!-- results: best kodak -->\n\n| at | best in PSNR" in made
    assert results.filled(made) == made


def test_rows_of_other_weights_are_measured_again_and_those_of_baselines_are_not(tmp_path: Path) -> None:
    ours, vvc = parse_codecs(["sprdiff-tiny", "vvc"])
    work = make_run(tmp_path / "work", codecs=["sprdiff-tiny", "vvc"], rates=(0.02,))
    assert results.forget_outdated(work, [ours, vvc]) == 4, "version 1.0 is another"
    assert {row.codec for row in read_rows(work)} == {"vvc"}
    now = ours.version()
    make_run(
        work, codecs=["sprdiff-tiny", "vvc"], rates=(0.02,), change=lambda row: replace(row, version=now)
    )
    before = (work / "rows.jsonl").read_bytes()
    assert results.forget_outdated(work, [ours, vvc]) == 0 and (work / "rows.jsonl").read_bytes() == before
    assert results.forget_outdated(tmp_path / "nowhere", [ours, vvc]) == 0


def test_large_pictures_are_shown_in_part_and_one_to_one(tmp_path: Path) -> None:
    images, codecs = ["a.png", "b.png"], ["sprdiff-tiny", "vvc"]
    make_run(tmp_path, images=images, codecs=codecs, rates=(0.02,))
    keep_pictures(tmp_path, images, codecs, (0.02,))
    large = photo(900, 1600, seed=5)
    Image.fromarray(large).save(member(tmp_path, "images", "vvc", RATE, "b.png", ".png"))
    out = tmp_path / "out"
    out.mkdir()
    chosen = results.Set("Test", "0.02", {"a": (0, 0), "b": (700, 300)}, (RATE,))
    results.publish_pictures(chosen, tmp_path, tmp_path / "nowhere", out)
    with Image.open(out / "pictures" / "b_0.02_vvc.webp") as image:
        shown = np.asarray(image.convert("RGB")).astype(float)
    assert shown.shape == (512, 768, 3)
    assert np.abs(shown - large[300:812, 700:1468]).mean() < 0.5 * np.abs(shown - large[0:512, 0:768]).mean()
    with Image.open(out / "pictures" / "a_0.02_sprdiff-tiny.webp") as image:
        assert image.size == (192, 128)
    text = (out / "pictures.md").read_text("utf-8")
    assert (
        "# Test: decoded pictures at equal bytes" in text
        and "768x512 pixels of each picture is shown, one to one" in text
    )
    rows = [row for row in read_rows(tmp_path) if row.image == "b.png" and row.codec == "vvc"]
    assert (
        to_json(rows[0]) and f"vvc, {rows[0].bytes} bytes, MS-SSIM {rows[0].metrics['ms_ssim']:.3f}" in text
    )


def test_what_is_published_of_other_codecs_is_not_measured_again(tmp_path: Path) -> None:
    ours, vvc = parse_codecs(["sprdiff-tiny", "vvc"])

    def change(row: Row) -> Row:
        return replace(row, version=vvc.version()) if row.codec == "vvc" else row

    names = ["sprdiff-tiny", "vvc"]
    published = make_run(tmp_path / "out", codecs=names, metrics=[PSNR, NAMED], rates=(0.02,), change=change)
    before = {path.name: path.read_bytes() for path in published.iterdir() if path.is_file()}
    assert results.adopt(published, tmp_path / "work", [ours, vvc]) == 4
    assert {row.codec for row in read_rows(tmp_path / "work")} == {"vvc"}, "ours are of version 1.0"
    assert (tmp_path / "work" / "sets.jsonl").read_bytes() == before["sets.jsonl"]
    assert results.adopt(published, tmp_path / "work", [ours, vvc]) == 0, "what was measured since stays"
    assert results.adopt(tmp_path / "nowhere", tmp_path / "other", [vvc]) == 0
    assert before == {path.name: path.read_bytes() for path in published.iterdir() if path.is_file()}


def test_the_picture_of_a_codec_that_was_not_run_again_is_the_published_one(tmp_path: Path) -> None:
    images, codecs = ["a.png"], ["sprdiff-tiny", "vvc"]
    make_run(tmp_path, images=images, codecs=codecs, rates=(0.02,))
    keep_pictures(tmp_path, images, codecs, (0.02,))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    chosen = results.Set("Test", "0.02", {"a": (0, 0)}, (RATE,))
    results.publish_pictures(chosen, tmp_path, second, first)
    member(tmp_path, "images", "vvc", RATE, "a.png", ".png").unlink()
    results.publish_pictures(chosen, tmp_path, first, second)
    for path in (first / "pictures").iterdir():
        assert (second / "pictures" / path.name).read_bytes() == path.read_bytes()
    assert (second / "pictures.md").read_text("utf-8") == (first / "pictures.md").read_text("utf-8")
