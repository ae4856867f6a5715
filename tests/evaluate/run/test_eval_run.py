"""Tests of a whole comparison: in processes, through deaths and kills, with nothing repeated and nothing
lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval_helpers import SIDE, Broken, Toy, write_photos
from sprdiff.evaluate.codecs.base import ImageCodec, MissingCodec
from sprdiff.evaluate.metrics.distortion import ms_ssim, psnr
from sprdiff.evaluate.metrics.features import _shapes
from sprdiff.evaluate.results import ROWS, ResultsError, Row, member, read_rows, read_run, read_sets
from sprdiff.evaluate.run.run import EvalOutcome, EvalProgress, evaluate
from sprdiff.evaluate.targets import Target
from sprdiff.imageio.open import open_rgb

RATES = (0.5, 2.0)
PATIENCE = 120.0
"""Seconds after which a process that does not come to its end fails a test."""


class Notebook(EvalProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun: tuple[int, int] | None = None
        self.rows: list[Row] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, units: int, rows: int) -> None:
        self.begun = units, rows

    def done(self, rows: Sequence[Row]) -> None:
        self.rows += rows


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Callable[..., tuple[EvalOutcome, Notebook]]:
    def call(*codecs: ImageCodec, **options: Any) -> tuple[EvalOutcome, Notebook]:
        progress = Notebook()
        given: dict[str, Any] = {
            "rates": RATES,
            "out": tmp_path / "out",
            "command": "sprdiff eval photos",
        } | options
        return evaluate(photos, codecs=codecs, progress=progress, **given), progress

    return call


Run = Callable[..., tuple[EvalOutcome, Notebook]]


class TestEvaluate:
    def test_rows(self, run: Run, photos: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        outcome, progress = run(Toy(), keep=True)
        rows = read_rows(out)
        assert [row.key for row in rows] == [
            ("toy", image, rate) for image in ("a.png", "b.png") for rate in map(Target, RATES)
        ]
        assert tuple(rows) == outcome.rows and progress.rows == rows and progress.begun == (2, 4)
        assert outcome.unreached == ()
        for row in rows:
            original = open_rgb(photos / row.image).pixels
            data = member(out, "files", "toy", row.target, row.image, ".bin").read_bytes()
            decoded = open_rgb(member(out, "images", "toy", row.target, row.image, ".png")).pixels
            assert (row.status, row.message, row.version) == ("ok", "", "toy 1")
            assert row.bytes == len(data) <= row.target.budget(SIDE, SIDE)
            assert row.bpp == 8 * len(data) / (SIDE * SIDE) and (row.width, row.height) == (SIDE, SIDE)
            # What is measured is what the bytes decode to, at the setting that is written down.
            np.testing.assert_array_equal(Toy().decode_at(data, row.setting, (SIDE, SIDE)), decoded)
            assert row.metrics["psnr"] == psnr(original, decoded)
            assert row.metrics["ms_ssim"] == ms_ssim(original, decoded)
            assert row.metrics.keys() == {"psnr", "ms_ssim", "ssimulacra2"}
            assert row.encode_s and row.decode_s and row.encode_s > 0 < row.decode_s

    def test_run_is_described(self, run: Run, photos: Path, tmp_path: Path) -> None:
        class Absent(Toy):
            def version(self) -> str:
                raise MissingCodec("pip install absent")

        _, progress = run(Toy(), Absent("absent"), rates=[2.0])
        about = read_run(tmp_path / "out")
        assert about.folder == str(photos) and about.commands == ["sprdiff eval photos"]
        assert [(image.name, image.width) for image in about.images] == [("a.png", SIDE), ("b.png", SIDE)]
        assert [(codec.name, codec.version) for codec in about.codecs] == [("toy", "toy 1")]
        assert [(skipped.name, skipped.reason) for skipped in about.skipped_codecs] == [
            ("absent", "pip install absent")
        ]
        assert progress.notes[0] == "without absent: pip install absent"
        # One line for each reason, not for each metric.
        assert (
            "without feature_distance, frechet_squeezenet: needs SqueezeNet 1.1: --features FILE"
            in progress.notes
        )
        with pytest.raises(MissingCodec, match="pip install absent"):
            run(Absent("absent"), out=tmp_path / "other")
        assert not (tmp_path / "other").exists()

    def test_goes_on_where_it_was(self, run: Run, tmp_path: Path) -> None:
        out, counter = tmp_path / "out", tmp_path / "encodes"
        toy = Toy(counts_in=counter)
        run(toy, rates=[0.5])
        first, encodes = (out / ROWS).read_bytes(), counter.stat().st_size
        _, progress = run(toy, rates=[0.5])
        assert ((out / ROWS).read_bytes(), counter.stat().st_size, progress.begun) == (first, encodes, (0, 0))
        outcome, progress = run(toy, replace(toy, name="new"), rates=[0.5, 2.0])
        assert progress.begun == (4, 6) and len(outcome.rows) == 8
        assert (out / ROWS).read_bytes().startswith(first)
        assert len(read_rows(out)) == 8 and read_run(out).rates == [0.5, 2.0]

    def test_failed_rows_are_tried_again(self, run: Run, tmp_path: Path) -> None:
        out, trouble = tmp_path / "out", tmp_path / "trouble"
        trouble.touch()
        outcome, _ = run(Toy(fails_on=trouble), Toy("good"), rates=[2.0])
        assert outcome.count("failed") == 2 and outcome.count("ok") == 2 and outcome.unreached == ()
        assert {row.message for row in read_rows(out) if row.codec == "toy"} == {"toy is broken"}
        good = [line for line in (out / ROWS).read_bytes().splitlines(True) if b'"good"' in line]
        trouble.unlink()
        outcome, progress = run(Toy(fails_on=trouble), Toy("good"), rates=[2.0])
        assert progress.begun == (2, 2) and outcome.count("ok") == 4 == len(read_rows(out))
        assert (out / ROWS).read_bytes().startswith(b"".join(good))

    def test_unexpected_error_is_told_in_the_row(self, run: Run) -> None:
        outcome, _ = run(Broken(), rates=[2.0])
        assert {(row.status, row.message) for row in outcome.rows} == {
            ("failed", "unexpected ZeroDivisionError: by nought")
        }

    def test_dead_process_takes_nothing_along(self, run: Run, tmp_path: Path) -> None:
        trouble = tmp_path / "trouble"
        trouble.touch()
        outcome, _ = run(Toy(dies_on=trouble), Toy("good"), rates=[2.0], jobs=2)
        status = {(row.codec, row.image): (row.status, row.message) for row in outcome.rows}
        died = ("failed", "its process died: out of memory, or crashed in a library")
        assert status == {
            ("toy", "a.png"): died,
            ("toy", "b.png"): died,
            ("good", "a.png"): ("ok", ""),
            ("good", "b.png"): ("ok", ""),
        }

    def test_rate_that_is_not_reached(self, run: Run) -> None:
        outcome, _ = run(Toy(), rates=[0.0001, 0.002, 2.0])
        assert outcome.unreached == (Target(0.0001), Target(0.002))
        low, higher, high = outcome.rows[:3]
        assert (low.status, higher.status, high.status) == ("unreached", "unreached", "ok")
        assert low.bytes is not None and low.bytes > 0.002 * SIDE * SIDE / 8 and low.bytes == higher.bytes
        assert low.bpp == 8 * low.bytes / (SIDE * SIDE) and low.metrics == {} and low.encode_s is None
        assert low.message == f"the smallest file has {low.bytes} bytes, 0 are allowed"

    def test_budgets_in_bytes(self, run: Run, tmp_path: Path) -> None:
        out = tmp_path / "out"
        outcome, progress = run(Toy(), rates=[2.0], keep=True)
        before = (out / ROWS).read_bytes()
        outcome, progress = run(Toy(), rates=(), budgets=[5000, 20, 5000], keep=True)
        assert (out / ROWS).read_bytes().startswith(before), "rates and budgets share a folder"
        # What an earlier run asked for is not asked for again, but it belongs to the folder.
        assert progress.begun == (2, 4)
        assert outcome.unreached == (Target(bytes=20),)
        rows = [row for row in read_rows(out) if row.target == Target(bytes=5000)]
        assert [row.image for row in rows] == ["a.png", "b.png"]
        for row in rows:
            data = member(out, "files", "toy", row.target, row.image, ".bin").read_bytes()
            assert row.status == "ok" and row.bytes == len(data) <= 5000 and row.target_bpp is None
        unreached = next(row for row in read_rows(out) if row.target == Target(bytes=20))
        assert unreached.message == f"the smallest file has {unreached.bytes} bytes, 20 are allowed"
        about = read_run(out)
        assert (about.rates, about.budgets) == ([2.0], [20, 5000])

    def test_version_has_changed(self, run: Run) -> None:
        run(Toy(), rates=[2.0])
        with pytest.raises(ResultsError, match="holds rows of toy 'toy 1', now it is 'toy 2'"):
            run(Toy(number="2"), rates=[2.0])

    def test_features_of_patches(self, run: Run, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = {k: rng.normal(0, 0.1, v).astype(np.float32) for k, v in _shapes().items()}
        np.savez(tmp_path / "net.npz", **arrays)
        outcome, progress = run(Toy(), rates=[2.0], features=tmp_path / "net.npz")
        assert all((row.metrics["feature_distance"] or 0) > 0 for row in outcome.rows)
        (figures,) = read_sets(tmp_path / "out")
        assert (figures.images, figures.patches, figures.metrics) == (
            2,
            {"frechet_squeezenet": 2},
            {"frechet_squeezenet": None},
        )
        assert progress.notes[-1] == "no frechet_squeezenet: needs at least 513 crops, has 2"
        with pytest.raises(ResultsError, match="measured with feature_distance, which is not at hand now"):
            run(Toy(), rates=[2.0])

    @pytest.mark.parametrize(
        "options", [{"jobs": 0}, {"rates": []}, {"rates": [0.0]}, {"rates": [float("nan")]}, {"budgets": [0]}]
    )
    def test_numbers_out_of_range(self, run: Run, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"jobs must be at least 1, and there must be a target|above 0"):
            run(Toy(), **options)
