"""The command on whole collections: ``sprdiff batch`` (it needs the extra: batch, and on a cluster: ray)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..batch.watcher import Watcher
from ..common.messages import one_line
from ..common.terminal import on_terminal
from ..errors import OutputError
from .eval import command_line
from .files import say, tell
from .options import (
    MAX_PIXELS,
    SCALES,
    Bpp,
    Force,
    MaxBytes,
    MaxPixels,
    Quality,
    Quiet,
    Strict,
    Weights,
    between,
    check_background,
    check_scale,
    check_targets,
)

if TYPE_CHECKING:
    from ..batch.local import Engine
    from ..batch.recode import Work
    from ..batch.run import Outcome

_KINDS = ("pictures", "shards", "parquet")


def _check_kind(value: str | None) -> str | None:
    if value is not None and value not in _KINDS:
        raise typer.BadParameter(f"{value} is not one of {', '.join(_KINDS)}")
    return value


def batch(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, list (.txt, or - for stdin), .tar, .parquet; or a URL.")
    ],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder of the outputs, or a URL; goes on there.")],
    quality: Quality = None,
    bpp: Bpp = None,
    max_bytes: MaxBytes = None,
    scale: Annotated[
        str | None,
        typer.Option("--scale", callback=lambda value: value and check_scale(value), help=", ".join(SCALES) + "."),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            "--background",
            callback=lambda value: value and check_background(value),
            help="Colour under transparent pixels.",
        ),
    ] = None,
    strict: Strict = False,
    decode: Annotated[bool, typer.Option("--decode", help="From .sprd files to pictures.")] = False,
    to: Annotated[str | None, typer.Option("--to", metavar="FORMAT", help="Of decoded pictures: png, jpg ...")] = None,
    realism: Annotated[
        float | None, typer.Option("--realism", callback=between(0, 1), help="0 faithful, 1 sharp, partly invented.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=1000, help="Evaluations of the generative network.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the noise in pictures.")] = None,
    jobs: Annotated[int | None, typer.Option("-j", "--jobs", min=1, help="Processes; none given: all cores.")] = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS", help="Ray cluster: auto, HOST:PORT, or local.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--as", callback=_check_kind, help="What SOURCE holds: " + ", ".join(_KINDS) + ".")
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="Of the pictures in Parquet.")] = None,
    output_column: Annotated[str | None, typer.Option("--output-column", help="What it becomes.")] = None,
    work: Annotated[
        Path | None, typer.Option("--work", metavar="DIR", help="Where to keep what is needed to go on.")
    ] = None,
    weights: Weights = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Encode or decode a whole collection; a run that was stopped goes on when it is started again."""
    common: dict[str, Any] = {"weights": str(weights) if weights else None, "max_pixels": max_pixels}
    encoding: dict[str, Any] = {
        "quality": quality,
        "bpp": bpp,
        "max_bytes": max_bytes,
        "scale": scale,
        "background": background,
    }
    encoding["strict"] = strict or None
    decoding = {"to": to, "realism": realism, "steps": steps, "seed": seed}
    what = _direction(decode, encoding, decoding, common)
    from ..batch.run import batch as run

    with _watching() as watcher:
        outcome = run(
            source,
            dest,
            what,
            engine=_engine(ray, jobs),
            kind=kind,
            column=column,
            output_column=output_column,
            force=force,
            folder=work,
            command=command_line(context),
            watcher=watcher,
        )
    return _tell(outcome, dest, quiet=quiet)


def _direction(decode: bool, encoding: dict[str, Any], decoding: dict[str, Any], common: dict[str, Any]) -> Work:
    """What is to be done, from the options that were given."""
    check_targets(*(encoding[name] for name in ("quality", "bpp", "max_bytes")))
    chosen, others = (decoding, encoding) if decode else (encoding, decoding)
    for name, value in others.items():
        if value is not None:
            direction = "encoding" if decode else "decoding: give --decode too"
            raise typer.BadParameter(f"--{name.replace('_', '-')} is for {direction}")
    given = {name: value for name, value in chosen.items() if value is not None} | common
    from ..batch.recode import Decode, Encode

    try:
        return Decode(**given) if decode else Encode(**given)
    except OutputError as error:
        raise typer.BadParameter(f"--to {decoding['to']}: no image format that can be written here") from error


def _engine(ray: str | None, jobs: int | None) -> Engine:
    if ray is None:
        from ..batch.local import Local

        return Local(jobs)
    from ..batch.cluster import Cluster

    return Cluster(ray, jobs)


def _tell(outcome: Outcome, dest: str, *, quiet: bool) -> int:
    """The end of a run: the failures, what it all comes to; the exit status."""
    totals = outcome.totals
    for source, error in totals.failures:
        say("error", error if source in error else f"{source}: {error}")
    if totals.failed > len(totals.failures):
        say("error", f"{totals.failed - len(totals.failures)} more have failed: see {outcome.manifest}")
    if totals.dropped:
        say(
            "warning",
            f"{totals.dropped} pictures lost something (alpha, frames ...) or are damaged: see {outcome.manifest}",
        )
    if not quiet:
        parts = [f"{totals.pictures} pictures"]
        parts += [f"{totals.failed} failed"] if totals.failed else []
        parts += [f"{totals.source_bytes} -> {totals.bytes} bytes"]
        parts += [f"{totals.bits / totals.pixels:.4f} bpp"] if totals.pixels else []
        speed = f" ({outcome.worked_on / outcome.seconds:.2f} images/s)" if outcome.worked_on else ""
        parts += [f"{outcome.worked_on} now{speed}"]
        tell(one_line(f"{dest}: {', '.join(parts)}"))
    return 1 if totals.failed else 0


class Lines(Watcher):
    """Notes only."""

    def note(self, text: str) -> None:
        say("warning", text)


class Bar(Lines):
    """With a bar: images done, how many a second, the time that is left, and failures.

    How many images there are is known of pictures; of containers it is reckoned from those that have been opened.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
        from rich.text import Text

        class Speed(ProgressColumn):
            """How many images a second."""

            def render(self, task: Task) -> Text:
                failed = f", {task.fields['failed']} failed" if task.fields["failed"] else ""
                return Text((f"{task.speed:.2f} images/s" if task.speed else "") + failed)

        columns = (BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=120)
        self._task = self.progress.add_task("images", total=None, visible=False, failed=0)
        self._failed = self._containers = self._opened = self._images = 0

    def begin(self, units: int, *, pictures: bool) -> None:
        self._containers = 0 if pictures else units
        self.progress.update(self._task, total=units if pictures else None, visible=units > 0)

    def opened(self, pictures: int) -> None:
        if self._containers:
            self._opened += 1
            self._images += pictures
            expected = round(self._images / self._opened * self._containers)
            self.progress.update(self._task, total=max(expected, self._images))

    def advanced(self, pictures: int, failed: int) -> None:
        self._failed += failed
        self.progress.update(self._task, advance=pictures, failed=self._failed)


@contextmanager
def _watching() -> Iterator[Watcher]:
    """A bar on a terminal, else lines only."""
    if not on_terminal():
        yield Lines()
        return
    bar = Bar()
    with bar.progress:
        yield bar
