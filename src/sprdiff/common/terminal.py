"""Progress on a terminal while long work runs."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


class ProgressBar:
    """A progress bar on standard error with the count and the remaining time; without a terminal it shows
    nothing.

    Args:
        what: what is counted.
        total: how many there are; None: not known yet.
        named: show `what` before the bar, and a text behind it.
        speed: show how many are done in a second, and a text behind it.
        active: False shows nothing on a terminal either.
        keep: leave the bar on the screen at the end.
    """

    def __init__(
        self,
        what: str,
        total: float | None = None,
        *,
        named: bool = False,
        speed: bool = False,
        active: bool = True,
        keep: bool = False,
    ) -> None:
        self._progress: Progress | None = None
        if not active or not on_terminal():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns: list[Any] = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        if named:
            columns = [
                TextColumn(f"[bold]{what}"),
                *columns[:2],
                TextColumn("{task.fields[text]}"),
                columns[2],
            ]
        if speed:
            columns.insert(-1, _speed_column(what))
        # The speed is measured over ten minutes: codecs differ a hundredfold, and the default of half a
        # minute sees one or two of them.
        self._progress = Progress(
            *columns,
            console=Console(stderr=True),
            transient=not keep,
            speed_estimate_period=600 if speed else 30,
        )
        self._task = self._progress.add_task(what, total=total, text="", visible=total is not None)

    def __enter__(self) -> ProgressBar:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, done: float, total: float | None = None, text: str = "") -> None:
        """Show how much is done, the total if it has changed, and a text if there is room for one."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, text=text, visible=True)

    def start(self) -> None:
        """Show the bar."""
        if self._progress is not None:
            self._progress.start()

    def close(self) -> None:
        """Remove the bar, or leave it on the screen."""
        if self._progress is not None:
            self._progress.stop()


def _speed_column(what: str) -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        """A column with how many are done in a second, and the text of the bar."""

        def render(self, task: Task) -> Text:
            speed = f"{task.speed:.2f} {what}/s" if task.speed else ""
            return Text(", ".join(filter(None, [speed, task.fields["text"]])))

    return Speed()
