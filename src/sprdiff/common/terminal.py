"""What is shown on a terminal while long work runs."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def on_terminal() -> bool:
    """Whether somebody sees what is written to standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


class ProgressBar:
    """A bar on standard error with the count and the time that is left; it shows nothing where no terminal is.

    Args:
        what: what is counted.
        total: how many there are; None: not known yet.
        named: show `what` before the bar, and a text behind it.
        speed: show how many of them are done in a second, and a text behind it.
        active: False shows nothing on a terminal either.
        keep: leave the bar on the screen at the end.
    """

    def __init__(
        self, what: str, total: float | None = None, *, named: bool = False, speed: bool = False,
        active: bool = True, keep: bool = False,
    ) -> None:  # fmt: skip
        self._progress: Progress | None = None
        if not active or not on_terminal():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns: list[Any] = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        if named:
            columns = [TextColumn(f"[bold]{what}"), *columns[:2], TextColumn("{task.fields[text]}"), columns[2]]
        if speed:
            columns.insert(-1, _speed_column(what))
        # The speed is that of the last ten minutes: codecs differ in speed a hundredfold, and the default half minute
        # sees one or two of them.
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=not keep, speed_estimate_period=600 if speed else 30
        )
        self._task = self._progress.add_task(what, total=total, text="", visible=total is not None)

    def __enter__(self) -> ProgressBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, done: float, total: float | None = None, text: str = "") -> None:
        """Show how much is done, of how much if that has changed, with a text where there is room for one."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, text=text, visible=True)

    def close(self) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.stop()


def _speed_column(what: str) -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        """How many are done in a second, and the text of the bar."""

        def render(self, task: Task) -> Text:
            speed = f"{task.speed:.2f} {what}/s" if task.speed else ""
            return Text(", ".join(filter(None, [speed, task.fields["text"]])))

    return Speed()
