"""What the commands do around the codec: output names, file after file, lines on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from ..common.files import STDIO, check_output, describe, is_special
from ..common.progress import Report
from ..errors import OutputError, WeightsError

DEBUG = "SPRDIFF_DEBUG"
"""Environment variable: 1 shows tracebacks."""


@dataclass(frozen=True)
class Job:
    """One input and the output it becomes; ``-`` is standard input or output."""

    source: str
    target: str


def plan(files: Sequence[str], out: str | None, extension: str) -> list[Job]:
    """Pair inputs with outputs: ``IN``, ``IN OUT``, ``IN -o OUT`` or ``IN... -o DIR``.

    Args:
        extension: of default output names, with its dot.

    Raises:
        typer.BadParameter: the names make no sense together (exit status 2).
        OutputError: the folder for the outputs cannot be made.
    """
    if "" in files or out == "":
        raise typer.BadParameter("a file name is empty")
    folder = None
    if out is None:
        if len(files) > 2:
            raise typer.BadParameter("several inputs need -o DIR")
        jobs = [Job(files[0], files[1] if len(files) == 2 else _renamed(files[0], extension))]
    elif len(files) == 1 and _is_file_name(out):
        jobs = [Job(files[0], out)]
    else:
        jobs, folder = _into_folder(files, out, extension), out
    if len({job.target for job in jobs}) < len(jobs):
        raise typer.BadParameter("two inputs would become the same output")
    if any(job.target == STDIO for job in jobs) and sys.stdout.isatty():
        raise typer.BadParameter("will not write binary data to a terminal")
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {describe(error)}") from error
    return jobs


def _renamed(source: str, extension: str) -> str:
    return STDIO if source == STDIO else str(Path(source).with_suffix(extension))


def _is_file_name(out: str) -> bool:
    """Whether ``-o`` names one file, not a folder: it has an extension or is no ordinary file."""
    if out == STDIO or is_special(out):
        return True
    return not out.endswith(("/", os.sep)) and not Path(out).is_dir() and Path(out).suffix != ""


def _into_folder(files: Sequence[str], out: str, extension: str) -> list[Job]:
    if STDIO in files:
        raise typer.BadParameter("standard input (-) cannot go into a folder, give its output a name")
    if _is_file_name(out) and not Path(out).is_dir() and (out == STDIO or Path(out).exists()):
        raise typer.BadParameter(f"several inputs need -o DIR, {out} is not a folder")
    return [Job(name, str(Path(out) / Path(_renamed(name, extension)).name)) for name in files]


def check_job(job: Job, *, force: bool) -> None:
    """Refuse an output before any work, as `check_output` does; the input is never overwritten."""
    same = os.path.exists(job.source) and os.path.exists(job.target) and not is_special(job.target)
    if same and os.path.samefile(job.source, job.target):
        raise OutputError(f"{job.target} is the input itself")
    check_output(job.target, force=force)


def run_jobs(names: Sequence[str], work: Callable[[int, Report], None], *, slow: bool = False) -> int:
    """Do ``work(i, report)`` for every input; report a failing one and go on. Returns the exit status, 0 or 1.

    Args:
        work: may tell ``report`` the fraction that it has done.
        slow: a single input takes long enough for a bar, too.
    """
    status = 0
    with _progress(len(names), shown=slow or len(names) > 1) as show:
        for index, name in enumerate(names):
            try:
                work(index, lambda done, before=index: show(before + done))  # type: ignore[misc]
            except (BrokenPipeError, WeightsError):
                raise  # no other file would fare better
            except Exception as error:
                if os.environ.get(DEBUG) == "1":
                    raise
                text = explain(error)
                say("error", text if name in text or len(names) == 1 else f"{name}: {text}")
                status = 1
            show(index + 1)
    return status


def explain(error: BaseException) -> str:
    """One line about an error; an unexpected one gets its type and a hint."""
    from ..errors import SprdiffError

    if isinstance(error, SprdiffError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected {type(error).__name__}: {error} (a bug; {DEBUG}=1 shows where)"


def say(kind: str, text: str) -> None:
    """One line on standard error: ``sprdiff: error: ...`` or ``sprdiff: warning: ...``."""
    sys.stderr.write(f"sprdiff: {kind}: {one_line(text)}\n")


def one_line(text: str) -> str:
    """The text with line breaks as spaces and control characters (of file names) written out."""
    return "".join(c if c.isprintable() else _escape(c) for c in " ".join(text.split()))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


@contextmanager
def _progress(count: int, *, shown: bool) -> Iterator[Report]:
    """A bar on standard error on a terminal, else nothing; told how many files are done, in fractions."""
    if not shown or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("files", total=count)
        yield lambda done: bar.update(task, completed=done)
