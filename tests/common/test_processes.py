"""Tests of a pool of processes: a process takes a task when it is free, and one that dies takes one task
along."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprdiff.common.processes import Processes


def work(task: tuple[str, str]) -> int:
    """Do what a task says, in a process of the pool; ``once`` dies at the first attempt only."""
    what, folder = task
    if what == "fails":
        raise OSError("it fails")
    mark = Path(folder) / what
    if what == "dies" or (what == "once" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_whose_process_dies_twice_gives_none(jobs: int, tmp_path: Path) -> None:
    tasks = [(what, str(tmp_path)) for what in ("a", "dies", "b", "once", "c")]
    with Processes(jobs) as pool:
        results = dict(pool.apply(work, tasks))
    assert set(results) == set(tasks)
    assert [what for (what, _), result in results.items() if result is None] == ["dies"]


def test_tasks_are_taken_one_by_one_and_processes_stay(tmp_path: Path) -> None:
    taken = []

    def tasks() -> Iterator[tuple[str, str]]:
        for number in range(4):
            taken.append(number)
            yield str(number), str(tmp_path)

    with Processes(1) as pool:
        results = pool.apply(work, tasks())
        first = next(results)[1]
        assert taken == [0]
        assert {first} == {pid for _, pid in results} == {pid for _, pid in pool.apply(work, tasks())}


def test_errors_in_tasks_and_in_their_source(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, str]]:
        yield "a", str(tmp_path)
        raise ValueError("no more")

    with Processes(2) as pool:
        with pytest.raises(ValueError, match="no more"):
            list(pool.apply(work, broken()))
        with pytest.raises(OSError, match="it fails"):
            list(pool.apply(work, [("fails", str(tmp_path))]))
        assert len(list(pool.apply(work, [("a", str(tmp_path))]))) == 1, "the pool can be used again"
