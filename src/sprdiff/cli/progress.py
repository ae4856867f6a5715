"""What ``sprdiff eval`` shows while it runs: notes, failures, and a bar on a terminal, all on standard
error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..common.terminal import ProgressBar
from ..evaluate.results import Row
from ..evaluate.run.run import EvalProgress
from .files import say


class ShownEvalProgress(EvalProgress):
    """Shows notes and failures on one line each, and a bar of the images (each counts once for every
    codec)."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar, self._done = bar, 0

    def note(self, text: str) -> None:
        say("warning", text)

    def begin(self, units: int, rows: int) -> None:
        if units:
            self._bar.show(0, units)

    def done(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.status == "failed":
                say("error", f"{row.codec}, {row.image}, {row.target}: {row.message}")
        self._done += 1
        self._bar.show(self._done)


@contextmanager
def shown() -> Iterator[EvalProgress]:
    """Show the progress of a run while a ``with`` block runs."""
    with ProgressBar("images", speed=True) as bar:
        yield ShownEvalProgress(bar)
