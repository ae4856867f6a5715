"""The engine of one machine: processes of the standard library's pool, one codec on one thread in each.

Pictures are handed out one by one, containers in pieces, so that one large container keeps all cores busy. Work
comes in waves, which bounds what is planned ahead and renews the processes now and then.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from ..common.processes import in_processes
from .recode import Row, explain
from .source import PICTURES, Unit
from .watcher import Watcher
from .work import (
    DIED,
    Job,
    Piece,
    Result,
    blame,
    discard,
    do_picture,
    do_piece,
    failure,
    finish,
    local_copy,
    pieces,
    result_of,
    rows,
)

T = TypeVar("T")
R = TypeVar("R")

WAVE = 4096
"""Pictures that are handed out before the processes are renewed."""


class Spread(Protocol):
    """How a function is applied to tasks; a task whose process has died gives None."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Iterator[tuple[T, R | None]]:
        """(task, result) as they come."""


Results = Generator[tuple[Unit, Result], None, None]


class Engine(Protocol):
    """What works on units."""

    def run(self, job: Job, units: Iterable[Unit], folder: Path, watcher: Watcher) -> Results:
        """The units as they are done, each once.

        Args:
            folder: of the run, for what is not finished.

        Raises:
            SprdiffError: no unit can be worked on.
        """


def cores() -> int:
    """Cores that this process may use, at least 1."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class Local:
    """The cores of this machine."""

    def __init__(self, jobs: int | None = None, spread: Spread = in_processes) -> None:
        """An engine.

        Args:
            jobs: processes; None: one for each core.
        """
        self.jobs, self._spread = jobs or cores(), spread

    def run(self, job: Job, units: Iterable[Unit], folder: Path, watcher: Watcher) -> Results:
        """See `Engine.run`."""
        if job.kind == PICTURES:
            return self._pictures(job, iter(units), watcher)
        return self._containers(job, units, folder, watcher)

    def _pictures(self, job: Job, units: Iterator[Unit], watcher: Watcher) -> Results:
        while wave := list(islice(units, WAVE)):
            work = functools.partial(do_picture, job)
            for unit, row in self._spread(work, wave, min(self.jobs, len(wave))):
                result = result_of(row or Row(unit.source, unit.target, unit.size, error=DIED))
                watcher.advanced(1, result.failed)
                yield unit, result

    def _containers(self, job: Job, units: Iterable[Unit], folder: Path, watcher: Watcher) -> Results:
        def copy(unit: Unit) -> Path:
            return local_copy(unit, folder / "fetched" / str(unit.n))

        wave: list[_Container] = []
        for unit, path in _one_ahead(copy, units):
            container = _Container(job, unit, folder / "spools" / str(unit.n))
            container.open(path, watcher)
            wave.append(container)
            if sum(c.pictures for c in wave) >= WAVE:
                yield from self._wave(wave, watcher)
                wave = []
        yield from self._wave(wave, watcher)

    def _wave(self, wave: list[_Container], watcher: Watcher) -> Iterator[tuple[Unit, Result]]:
        owners = {piece.spool: container for container in wave for piece in container.pieces}
        for container in wave:
            if not container.left:
                yield from container.end()
        tasks = [piece for container in wave for piece in container.pieces]
        while tasks:
            died = []
            for piece, counts in self._spread(_try_piece, tasks, min(self.jobs, len(tasks))):
                if counts is None:
                    blame(piece)
                    died.append(piece)
                    continue
                container = owners[piece.spool]
                container.add(counts, watcher)
                if not container.left:
                    yield from container.end()
            tasks = died


@dataclass
class _Container:
    """A container at work."""

    job: Job
    unit: Unit
    folder: Path
    path: Path = Path()
    pieces: tuple[Piece, ...] = ()
    left: int = 0
    pictures: int = 0
    failed: int = 0
    error: str = ""

    def open(self, path: Future[Path], watcher: Watcher) -> None:
        """Look into it once it has been fetched."""
        try:
            self.path = path.result()
            self.pieces = tuple(pieces(self.job, self.unit, self.path, self.folder))
        except Exception as error:  # whatever a library makes of an odd file: this one fails, the others go on
            self.error = explain(error)
        self.left = len(self.pieces)
        self.pictures = sum(len(piece.content) for piece in self.pieces)
        watcher.opened(self.pictures)

    def add(self, counts: tuple[int, int] | str, watcher: Watcher) -> None:
        """A piece is done: (pictures, failed), or why it could not be worked on."""
        self.left -= 1
        if isinstance(counts, str):
            self.error = counts
        else:
            self.failed += counts[1]
            watcher.advanced(*counts)

    def end(self) -> Iterator[tuple[Unit, Result]]:
        """Place its output; when the consumer has noted that, nothing else of it is left."""
        if not self.error:
            try:
                finish(self.job, self.unit, self.path, list(self.pieces), self.folder)
            except Exception as error:
                self.error = explain(error)
        if self.error:
            yield self.unit, failure(self.unit, self.error)
        else:
            yield self.unit, Result(rows(list(self.pieces)), self.pictures, self.failed)
            discard(self.folder)
        if self.path.parent.name == "fetched":
            self.path.unlink(missing_ok=True)


def _try_piece(piece: Piece) -> tuple[int, int] | str:
    try:
        return do_piece(piece)
    except Exception as error:
        return explain(error)


def _one_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, Future[R]]]:
    """(item, result to come) of each; that of the next is at work while one is used."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="fetch")
    try:
        waiting: tuple[T, Future[R]] | None = None
        for item in items:
            following = item, pool.submit(function, item)
            if waiting is not None:
                yield waiting
            waiting = following
        if waiting is not None:
            yield waiting
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
