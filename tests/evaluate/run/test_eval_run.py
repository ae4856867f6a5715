"""Tests of a whole comparison: in processes, through deaths and kills, with nothing repeated and nothing
lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from eval_helpers import SIDE, Broken, Toy, a_row, write_photos
from sprdiff import cli
from sprdiff.cli.progress import shown
from sprdiff.common.processes import in_processes
from sprdiff.evaluate.codecs.base import ImageCodec, MissingCodec
from sprdiff.evaluate.metrics.distortion import ms_ssim, psnr
from sprdiff.evaluate.metrics.features import _shapes
from sprdiff.evaluate.results import ROWS, ResultsError, Row, member, read_rows, read_run, read_sets
from sprdiff.evaluate.run.run import Outcome, Progress, evaluate
from sprdiff.evaluate.targets import Target
from sprdiff.imageio.open import open_rgb

RATES = (0.5, 2.0)
PATIENCE = 120.0
"""Seconds after which a process that does not come to its end fails a test."""


class Notebook(Progress):
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
def run(photos: Path, tmp_path: Path) -> Callable[..., tuple[Outcome, Notebook]]:
    def call(*codecs: ImageCodec, **options: Any) -> tuple[Outcome, Notebook]:
        progress = Notebook()
        given: dict[str, Any] = {
            "rates": RATES,
            "out": tmp_path / "out",
            "command": "sprdiff eval photos",
        } | options
        return evaluate(photos, codecs=codecs, progress=progress, **given), progress

    return call


Run = Callable[..., tuple[Outcome, Notebook]]


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


def pid_of(number: int) -> int:
    if number < 0:
        raise OSError("negative")
    return os.getpid()


class TestProcesses:
    def test_results_belong_to_their_tasks(self) -> None:
        assert dict(in_processes(abs, [-1, 2, -3], 2)) == {-1: 1, 2: 2, -3: 3}
        assert list(in_processes(abs, [], 2)) == []

    def test_workers_are_other_processes_and_end(self) -> None:
        pids = {pid for _, pid in in_processes(pid_of, range(4), 2)}
        assert os.getpid() not in pids and 1 <= len(pids) <= 2
        assert not any(map(alive, filter(None, pids)))

    def test_errors_come_through(self) -> None:
        with pytest.raises(OSError, match="negative"):
            list(in_processes(pid_of, [-1], 1))

    def test_a_consumer_that_stops_ends_the_work(self) -> None:
        work = in_processes(time.sleep, [0, 1000, 1000], 2)
        next(work)
        start = time.monotonic()
        work.close()  # type: ignore[attr-defined]
        assert time.monotonic() - start < 500


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> set[int]:
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child} | descendants(child)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class TestCommand:
    CODECS, SOME_RATES, COUNT = ("jpeg", "webp"), (0.5, 1.0), 3

    @pytest.fixture
    def command(self, tmp_path: Path) -> list[str]:
        folder = write_photos(tmp_path / "photos", self.COUNT)
        return [
            *(sys.executable, "-m", "sprdiff", "eval", str(folder), "-o", str(tmp_path / "out")),
            *("--codecs", ",".join(self.CODECS), "--bpp", ",".join(map(str, self.SOME_RATES))),
        ]

    @pytest.fixture
    def started(self, command: list[str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        """Start the command in a process group of its own, as a shell would; return it once it has finished a
        unit."""
        errors: IO[str]
        # A run of the tests in the background has Ctrl-C ignored, and its children would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with open(tmp_path / "stderr", "w") as errors:
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=errors, text=True, start_new_session=True
                )
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            rows = tmp_path / "out" / ROWS
            wait_for(lambda: process.poll() is not None or (rows.exists() and rows.stat().st_size > 0))
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def test_kill_and_resume(
        self, started: subprocess.Popen[str], command: list[str], tmp_path: Path
    ) -> None:
        rows = tmp_path / "out" / ROWS
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1].startswith(
            f"sprdiff: error: {tmp_path / 'out'} is in use by process {started.pid} on "
        )
        workers = descendants(started.pid)
        started.kill()
        started.wait()
        wait_for(lambda: not any(map(alive, workers)))

        before = rows.read_bytes()
        total = len(self.CODECS) * self.COUNT * len(self.SOME_RATES)
        assert 0 < before.count(b"\n") < total
        # What a kill in the middle of writing leaves.
        rows.write_bytes(before + before[: len(before) // 3].replace(b"\n", b""))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / 'out'}: {total} rows\n"
        assert sum("the last line was cut and is dropped" in line for line in done.stderr.splitlines()) == 1
        after = rows.read_bytes()
        assert after.startswith(before)
        keys = [row.key for row in read_rows(tmp_path / "out")]
        assert len(keys) == len(set(keys)) == total
        assert {row.status for row in read_rows(tmp_path / "out")} == {"ok"}
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        assert rows.read_bytes() == after

    def test_interrupt(self, started: subprocess.Popen[str], tmp_path: Path) -> None:
        workers = descendants(started.pid)
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(PATIENCE) == 130
        wait_for(lambda: not any(map(alive, workers)))
        assert "Traceback" not in (tmp_path / "stderr").read_text()
        assert 0 < len(read_rows(tmp_path / "out")) < len(self.CODECS) * self.COUNT * len(self.SOME_RATES)

    def test_what_was_run_is_written_down(self, command: list[str], tmp_path: Path) -> None:
        done = subprocess.run(
            [*command, "--limit", "1", "-j", "2"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        folder, out = tmp_path / "photos", tmp_path / "out"
        assert read_run(out).commands == [
            f"sprdiff eval {folder} --output {out} --codecs jpeg,webp --bpp 0.5,1.0 --jobs 2 --limit 1"
        ]
        report = subprocess.run(
            [*command[:3], "report", str(out), "-o", str(tmp_path / "page")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert report.returncode == 0, report.stderr
        assert report.stdout == f"{tmp_path / 'page' / 'index.html'}\n"


class TestUsage:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_photos(Path("photos"), 1)
        Path("empty").mkdir()
        Path("spoilt").mkdir()
        Path("spoilt/x.png").write_bytes(b"words")

    EXTERNAL = (
        "--external-encode",
        "mine=false {input} {output} {quality}",
        "--external-decode",
        "mine=false {input} {output}",
    )

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["photos"], "Missing option"),
            (
                ["photos", "-o", "out", "--bpp", "1,x"],
                "rates are numbers above 0 with commas between, not 1,x",
            ),
            (["photos", "-o", "out", "--bpp", "0"], "rates are numbers above 0"),
            (["photos", "-o", "out", "--bpp", "nan"], "rates are numbers above 0"),
            (["photos", "-o", "out", "--bpp", ""], "rates are numbers above 0"),
            (["photos", "-o", "out", "--bytes", "1200,0"], "sizes are whole numbers of bytes above 0"),
            (["photos", "-o", "out", "--bytes", "1.5"], "with commas between, not 1.5"),
            (["photos", "-o", "out", "--bytes", "", "--bpp", "1"], "sizes are whole numbers"),
            (["photos", "-o", "out", "-j", "0"], "-j"),
            (["photos", "-o", "out", "--limit", "0"], "--limit"),
            (["photos", "-o", "out", "--codecs", "jpeg,mpeg"], "mpeg"),
            (["photos", "-o", "out", "--codecs", ""], "there is no codec"),
            (["photos", "-o", "out", *EXTERNAL], "codec mine needs --external-quality too"),
            (["photos", "-o", "out", "--external-encode", "mine"], "takes NAME=VALUE, not mine"),
            (["photos", "-o", "out", *EXTERNAL, *EXTERNAL], "--external-encode for mine is given twice"),
            (
                [
                    "photos",
                    "-o",
                    "out",
                    *(word.replace("{output}", "x") for word in EXTERNAL),
                    "--external-quality",
                    "mine=1:2",
                ],
                "needs {output}",
            ),
            (
                ["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1"],
                "takes FROM:TO or FROM:TO:STEP",
            ),
            (["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1:2:3:4"], "takes FROM:TO"),
            (["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1:2:0"], "takes FROM:TO"),
            (["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1:9:0.0001"], "80001 qualities"),
        ],
    )
    def test_wrong_usage(self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("sprdiff: error: ") and words in err and err.count("\n") == 1
        assert not Path("out").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["nowhere", "-o", "out"], "nowhere cannot be read: no such file or directory"),
            (["photos/a.png", "-o", "out"], "not a directory"),
            (["empty", "-o", "out"], "no images in empty"),
            (["spoilt", "-o", "out"], "x.png"),
            (["photos", "-o", "photos"], "photos is not empty and holds no results"),
            (["photos", "-o", "out", "--features", "nothing.h5"], "nothing.h5"),
        ],
    )
    def test_refused(self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", *arguments, "--codecs", "jpeg"]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("sprdiff: error: ") and words in err and err.count("\n") == 1
        assert not Path("out").exists() and os.listdir("photos") == ["a.png"]

    def test_rate_that_no_codec_reaches(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bpp", "0.0001,1"]) == 1
        out, err = capsys.readouterr()
        assert out == "out: 2 rows, 1 unreached\n"
        assert err.splitlines()[-1] == "sprdiff: error: no codec reaches 0.0001 bpp on any image"

    def test_bytes_alone_or_beside_bpp(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bytes", "3000,90"]) == 1
        out, err = capsys.readouterr()
        assert out == "out: 2 rows, 1 unreached\n", "the usual rates are not asked for as well"
        assert err.splitlines()[-1] == "sprdiff: error: no codec reaches 90 bytes on any image"
        assert (
            cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bytes", "3000", "--bpp", "1"])
            == 0
        )
        assert capsys.readouterr().out == "out: 2 rows\n"
        assert [row.target for row in read_rows(Path("out"))] == [
            Target(bytes=90),
            Target(bytes=3000),
            Target(1.0),
        ]
        assert cli.main(["report", "out", "--picture-rates", "1,3000B"]) == 0
        text = Path("out/report/report.md").read_text()
        assert "Means at 1 bpp" in text and "**At 3000 bytes** (0.7748 bpp)" in text
        assert cli.main(["report", "out", "--picture-rates", "3000b"]) == 2
        assert "rates are bits per pixel (0.0203) or bytes (1200B)" in capsys.readouterr().err

    def test_failed_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        external = [*self.EXTERNAL, "--external-quality", "mine=9:1:4"]
        assert cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bpp", "1", *external]) == 1
        out, err = capsys.readouterr()
        assert out == "out: 2 rows, 1 failed\n"
        assert err.splitlines()[-1].startswith("sprdiff: error: mine, a.png, 1 bpp: ")
        # It has joined without being among --codecs, and is written down so that a shell takes it apart
        # again.
        assert (
            "'mine=false {input} {output} {quality}'"
            in json.loads(Path("out/run.json").read_text())["commands"][0]
        )

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("63:60", (63, 62, 61, 60)),
            ("1:10:4", (1, 5, 9)),
            ("0.5:2:0.5", (0.5, 1, 1.5, 2)),
            ("5:5", (5,)),
            ("3:0:1.5", (3, 1.5, 0)),
        ],
    )
    def test_qualities_of_external_codecs(self, text: str, values: tuple[float, ...]) -> None:
        from sprdiff.cli.eval import parse_external

        (codec,) = parse_external([self.EXTERNAL[1]], [self.EXTERNAL[3]], [f"mine={text}"])
        assert tuple(codec.qualities) == values and codec.name == "mine"


def test_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown() as progress:
        progress.begin(2, 4)
        progress.done([a_row()])
        progress.note("without avif")
        progress.done([a_row(status="failed", message="no")])
    out, err = capsys.readouterr()
    assert out == "" and "2/2" in err
    assert "sprdiff: warning: without avif" in err and "sprdiff: error: toy, a.png, 0.5 bpp: no" in err


def test_help_is_light() -> None:
    show = "print(sorted(sys.modules), file=sys.stderr)"
    code = f"import sprdiff.cli, sys; sprdiff.cli.main(['eval', '--help']); {show}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--external-quality" in done.stdout
    assert not {"'numpy'", "'torch'", "'PIL'", "'scipy'"} & set(done.stderr.strip("[]\n").split(", "))
