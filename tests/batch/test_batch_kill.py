"""Tests of runs that are stopped anywhere, even by SIGKILL: they go on, and nothing is lost, doubled or
half-written.

At most one file for each worker is worked on twice, which may be a shard or a table with all its pictures.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from batch_helpers import (
    DECODE,
    ENCODE,
    Notebook,
    engine,
    finished,
    manifest,
    outputs,
    png,
    run,
    write_samples,
    write_table,
    write_tree,
)
from sprdiff.batch import work
from sprdiff.batch.recode import Encode
from sprdiff.batch.records import Records

T = TypeVar("T")
R = TypeVar("R")
psutil = pytest.importorskip("psutil")
PATIENCE = 120.0
"""Seconds after which a process that does not come to its end fails a test."""


class Killed(BaseException):
    """An exception that stands for a kill, because no handler of errors catches it."""


def sources(kind: str, folder: Path) -> Path:
    """Write a small collection of a kind, with five pictures of which one may be unreadable."""
    if kind == "pictures":
        write_tree(folder, ["a.png", "b.png", "deep/c.png", "deep/d.png"])
        (folder / "x.png").write_bytes(b"?")
    elif kind == "shards":
        write_samples(folder / "a.tar", 3)
        write_samples(folder / "b.tar", 2, first=3)
    else:
        write_table(folder / "a.parquet", [png(0), b"?", png(2)], group=2, label=[1, 2, 3])
        write_table(folder / "b.parquet", [png(3), png(4)], label=[4, 5])
    return folder


def count_steps(patch: pytest.MonkeyPatch, limit: int | None = None) -> list[str]:
    """Let a run die before its limit-th step that writes to the disk; the list grows with the steps."""
    steps: list[str] = []

    def stepping(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            if len(steps) == limit:
                raise Killed
            steps.append(name)
            return function(*given, **named)

        return step

    for name in ("begin", "put"):
        patch.setattr(Records, name, stepping(name, getattr(Records, name)))
    for name in ("recode", "place"):
        patch.setattr(work, name, stepping(name, getattr(work, name)))
    return steps


@pytest.mark.parametrize(("kind", "most"), [("pictures", 1), ("shards", 3), ("parquet", 3)])
def test_a_kill_at_any_point(kind: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources(kind, tmp_path / "in")
    with monkeypatch.context() as patch:
        steps = count_steps(patch)
        run(source, tmp_path / "straight")
    made = Counter[bytes]()

    def counted(self: Encode, data: bytes) -> Any:
        result = make(self, data)
        made[data] += 1
        return result

    make = Encode.make
    monkeypatch.setattr(Encode, "make", counted)
    expected = _comparable(tmp_path / "straight")
    for limit in range(len(steps)):
        out = tmp_path / str(limit)
        made.clear()
        with monkeypatch.context() as patch, pytest.raises(Killed):
            count_steps(patch, limit)
            run(source, out)
        assert outputs(out).items() <= outputs(tmp_path / "straight").items(), "whole, or not there"
        run(source, out)
        assert outputs(out) == outputs(tmp_path / "straight")
        assert _comparable(out) == expected
        assert sum(made.values()) - len(made) <= most, "more than the file that was at work has been repeated"
        assert {path.name for path in (out / ".sprdiff-batch").iterdir()} == {
            "records.sqlite",
            "running.lock",
        }


def _comparable(out: Path) -> list[tuple[str, int, str]]:
    return [(Path(row["source"]).name, row["bytes"], row["error"]) for row in manifest(out)]


@pytest.mark.parametrize("kind", ["pictures", "shards", "parquet"])
def test_what_was_finished_but_not_noted_is_recognised(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = sources(kind, tmp_path / "in")
    for source, out, direction in (
        (tree, tmp_path / "out", ENCODE),
        (tmp_path / "out", tmp_path / "back", DECODE),
    ):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Records, "put", _die)
            run(source, out, direction)
        (only,) = outputs(out)
        before = (out / only).stat()
        run(source, out, direction)
        after = (out / only).stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        assert len(finished(out)) == len(outputs(out)) > 1


def _die(*_: object, **__: object) -> None:
    raise Killed


def test_a_run_with_force_goes_on_with_force_only(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png", "b.png"])
    out = write_tree(tmp_path / "out", ["a.sprd", "b.sprd"])
    with pytest.raises(Killed):
        run(tree, out, force=True, engine=engine(dying_after(1)))
    assert outputs(out)["b.sprd"] == b"text"
    outcome = run(tree, out)
    assert (outcome.worked_on, outcome.totals.failed) == (1, 1) and outputs(out)["b.sprd"] == b"text"
    assert run(tree, out, force=True).worked_on == 1
    assert all(data.startswith(b"SPR") for data in outputs(out).values())


def dying_after(count: int) -> Any:
    """Apply a function like `here`, but die after so many tasks."""

    def spread(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Iterator[tuple[T, R | None]]:
        for number, task in enumerate(tasks):
            if number == count:
                raise Killed
            yield task, function(task)

    return spread


def test_an_interrupted_run_leaves_a_manifest_of_what_is_there(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", [f"{i}.png" for i in range(4)])
    with pytest.raises(Killed):
        run(tree, tmp_path / "out", engine=engine(dying_after(2)))
    assert [Path(row["source"]).name for row in manifest(tmp_path / "out")] == ["0.png", "1.png"]
    progress = Notebook()
    assert run(tree, tmp_path / "out", progress=progress).worked_on == 2
    assert progress.files == [2] and len(manifest(tmp_path / "out")) == 4


def test_notes_that_a_power_cut_has_taken(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png", "b.png"])
    out = tmp_path / "out"
    run(tree, out)
    before = {path: (out / path).stat().st_mtime_ns for path in outputs(out)}
    for left in (1, 0):
        with closing(sqlite3.connect(out / ".sprdiff-batch" / "records.sqlite")) as records, records:
            records.execute("DELETE FROM files WHERE rowid > ?", (left,))
        outcome = run(tree, out)
        assert (outcome.worked_on, outcome.totals.failed, len(manifest(out))) == (2 - left, 0, 2)
        assert {path: (out / path).stat().st_mtime_ns for path in outputs(out)} == before


def test_leftovers_of_a_kill_are_swept_away(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png", "b.png"])
    work_folder = tmp_path / "work"
    with pytest.raises(Killed):
        run(tree, tmp_path / "out", engine=engine(dying_after(1)), folder=work_folder)
    staged = tmp_path / "out" / ".sprdiff-batch" / "staged" / "half"
    staged.parent.mkdir()
    staged.write_bytes(b"half")
    run(tree, tmp_path / "out", folder=work_folder)
    assert set(outputs(tmp_path / "out")) == {"a.sprd", "b.sprd"}
    assert [path.name for path in staged.parent.parent.iterdir()] == ["running.lock"]


# ---------------------------------------------------------------------------- deaths of workers


def mortal(victims: set[bytes], deaths: int) -> Any:
    """Apply a function like `here`, but let the process die so often at each of these pictures."""
    left = Counter(dict.fromkeys(victims, deaths))
    make = Encode.make

    def dangerous(self: Encode, data: bytes) -> Any:
        if left[data] > 0:
            left[data] -= 1
            raise Killed
        return make(self, data)

    def spread(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Iterator[tuple[T, R | None]]:
        for task in tasks:
            try:
                yield task, function(task)
            except Killed:
                yield task, None

    Encode.make, undo = dangerous, make  # type: ignore[method-assign]
    return spread, lambda: setattr(Encode, "make", undo)


@pytest.mark.parametrize("kind", ["pictures", "shards", "parquet"])
def test_only_the_picture_that_kills_its_worker_fails(kind: str, tmp_path: Path) -> None:
    if kind == "pictures":
        source = write_tree(tmp_path / "in", [f"{i}.png" for i in range(5)])
    elif kind == "shards":
        source = write_samples(tmp_path / "in" / "a.tar", 5).parent
    else:
        source = write_table(tmp_path / "in" / "a.parquet", [png(i) for i in range(5)]).parent
    spread, undo = mortal({png(1), png(3)}, 1)
    try:
        outcome = run(source, tmp_path / "out", engine=engine(spread))
    finally:
        undo()
    errors = [row["error"] for row in manifest(tmp_path / "out")]
    assert [bool(error) for error in errors] == [False, True, False, True, False]
    assert "its process died" in errors[1] and outcome.totals.failed == 2


# ---------------------------------------------------------------------------- the real thing


def _start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sprdiff", "batch", *map(str, arguments)]
    # A group of its own, and Ctrl-C is heard even if whoever started the tests does not listen.
    restore = (
        (lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) if os.name == "posix" else None
    )
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=restore
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < end
        time.sleep(0.01)


def _has_outputs(folder: Path, least: int) -> bool:
    return len([*folder.glob("[0-9]/*.sprd")]) >= least


def _stop(process: subprocess.Popen[bytes], kind: signal.Signals) -> bytes:
    """Stop a process; return what it still says, when it and all its children have gone."""
    children = psutil.Process(process.pid).children()
    process.send_signal(kind)
    said = process.communicate(timeout=PATIENCE)[1]
    assert not psutil.wait_procs(children, PATIENCE)[1]
    return said


def test_a_real_run_stopped_in_three_ways(tmp_path: Path) -> None:
    """First comes Ctrl-C, then SIGKILL of the run, then SIGKILL of a worker."""
    count = 80
    tree = write_tree(tmp_path / "in", [f"{i // 10}/{i:03d}.png" for i in range(count)])
    out = tmp_path / "out"
    done = 0
    before: dict[str, int] = {}
    for stop in (signal.SIGINT, signal.SIGKILL, None):
        process = _start(tree, out, "-q", "10", "-j", "2")
        _wait_for(partial(_has_outputs, out, done + 5), process)
        if stop is not None:
            assert b"Traceback" not in _stop(process, stop)
            assert process.returncode == (130 if stop == signal.SIGINT else -stop)
        else:
            # One that has loaded the networks: the resource tracker is a child too.
            children = psutil.Process(process.pid).children()
            next(c for c in children if "spawn_main" in " ".join(c.cmdline())).send_signal(signal.SIGKILL)
            assert process.communicate(timeout=PATIENCE)[1] == b"" and process.returncode == 0
        made = {path: (out / path).stat().st_mtime_ns for path in outputs(out)}
        assert before.items() <= made.items(), "what is done is not touched again"
        done, before = len(made), made
        assert stop is None or done < count
    assert finished(out) == sorted(map(str, tree.rglob("*.png")))
    rows = manifest(out)
    assert len({row["source"] for row in rows}) == len(rows) == count and not any(
        row["error"] for row in rows
    )
    assert set(outputs(out)) == {f"{i // 10}/{i:03d}.sprd" for i in range(count)}
    assert {path.name for path in (out / ".sprdiff-batch").iterdir()} == {"records.sqlite", "running.lock"}
