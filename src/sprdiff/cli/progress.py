"""What ``sprdiff eval`` shows while it runs, all on standard error: notes, failures, on a terminal a bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..evaluate.results import Row
from ..evaluate.run.run import Watcher
from .files import on_terminal, say


class Lines(Watcher):
    """Notes and failures, a line each."""

    def note(self, text: str) -> None:
        say("warning", text)

    def done(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.status == "failed":
                say("error", f"{row.codec}, {row.image}, {row.target}: {row.message}")


class Bar(Lines):
    """With a bar: images done (each once per codec), how many in a second, and the time that is left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
        from rich.text import Text

        class Speed(ProgressColumn):
            """How many images a second."""

            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:.2f} images/s" if task.speed else "")

        columns = (BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
        # Of the last ten minutes: codecs differ in speed a hundredfold, the default half minute sees one or two.
        console = Console(stderr=True)
        self.progress = Progress(*columns, console=console, transient=True, speed_estimate_period=600)
        self._task = self.progress.add_task("images", total=None, visible=False)

    def begin(self, units: int, rows: int) -> None:
        self.progress.update(self._task, total=units, visible=units > 0)

    def done(self, rows: Sequence[Row]) -> None:
        super().done(rows)
        self.progress.advance(self._task)


@contextmanager
def watching() -> Iterator[Watcher]:
    """A bar on a terminal, else lines only."""
    if not on_terminal():
        yield Lines()
        return
    bar = Bar()
    with bar.progress:
        yield bar
