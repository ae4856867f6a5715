"""Tests of the processes of a run: they end with it, and a codec that hangs or crashes harms nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from eval_helpers import write_photos
from sprdiff.common.processes import in_processes
from sprdiff.evaluate.results import ROWS, read_rows, read_run

PATIENCE = 120.0
"""Seconds after which a process that does not come to its end fails a test."""


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
