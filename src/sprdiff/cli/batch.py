"""The command on whole collections: ``sprdiff batch`` (it needs the extra: batch, and on a cluster: ray)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..batch.progress import Progress
from ..common.messages import one_line
from ..common.terminal import ProgressBar
from ..errors import OutputError
from ..limits import MAX_PIXELS, MAX_STEPS
from ..options import SCALE_NAMES
from .eval import command_line
from .fields import takes
from .files import say, tell
from .options import MaxPixels, Strict, TargetOptions, Weights, WritingOptions, as_usage

if TYPE_CHECKING:
    from ..batch.recode import Work
    from ..batch.run import Engine, Outcome

_KINDS = ("pictures", "shards", "parquet")


def _check_kind(value: str | None) -> str | None:
    if value is not None and value not in _KINDS:
        raise typer.BadParameter(f"{value} is not one of {', '.join(_KINDS)}")
    return value


Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="Folder, list (.txt; - is stdin), .tar, .parquet; or a URL."),
]
Dest = Annotated[
    str, typer.Argument(metavar="DEST", help="Folder of the outputs, or a URL; a stopped run goes on.")
]
Scale = Annotated[str | None, typer.Option("--scale", help=", ".join(SCALE_NAMES) + ".")]
Background = Annotated[str | None, typer.Option("--background", help="Colour under transparent pixels.")]
ToDecode = Annotated[bool, typer.Option("--decode", help="Decode .sprd files to pictures.")]
To = Annotated[
    str | None, typer.Option("--to", metavar="FORMAT", help="Format of decoded pictures: png, jpg ...")
]
Realism = Annotated[float | None, typer.Option("--realism", help="0 faithful, 1 sharp, partly invented.")]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, max=MAX_STEPS, help="Evaluations of the generative network.")
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the noise in pictures.")
]
Jobs = Annotated[
    int | None, typer.Option("-j", "--jobs", min=1, help="Processes; default: one for each core.")
]
Ray = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="Ray cluster: auto, HOST:PORT, or local.")
]
Kind = Annotated[
    str | None,
    typer.Option("--as", callback=_check_kind, help="What SOURCE holds: " + ", ".join(_KINDS) + "."),
]
Column = Annotated[str | None, typer.Option("--column", help="Column of the pictures in Parquet.")]
OutputColumn = Annotated[
    str | None, typer.Option("--output-column", help="Name of that column in the outputs.")
]
Folder = Annotated[
    Path | None, typer.Option("--work", metavar="DIR", help="Folder for what is needed to go on.")
]


@takes
def batch(
    context: typer.Context,
    source: Source,
    dest: Dest,
    target: TargetOptions,
    scale: Scale = None,
    background: Background = None,
    strict: Strict = False,
    decode: ToDecode = False,
    to: To = None,
    realism: Realism = None,
    steps: Steps = None,
    seed: Seed = None,
    jobs: Jobs = None,
    ray: Ray = None,
    kind: Kind = None,
    column: Column = None,
    output_column: OutputColumn = None,
    work: Folder = None,
    weights: Weights = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    *,
    writing: WritingOptions,
) -> int:
    """Encode or decode a whole collection; a run that was stopped goes on when it is started again."""
    common = {"weights": str(weights) if weights else None, "max_pixels": max_pixels}
    encoding = {**asdict(target), "scale": scale, "background": background}
    decoding = {"to": to, "realism": realism, "steps": steps, "seed": seed}
    what = _direction(decode, {**encoding, "strict": strict or None}, decoding, common)
    from ..batch.run import batch as run

    with ProgressBar("images", speed=True) as bar:
        outcome = run(
            source,
            dest,
            what,
            engine=_engine(ray, jobs),
            kind=kind,
            column=column,
            output_column=output_column,
            force=writing.force,
            folder=work,
            command=command_line(context),
            progress=ShownProgress(bar),
        )
    return _tell(outcome, dest, quiet=writing.quiet)


def _direction(
    decode: bool, encoding: dict[str, Any], decoding: dict[str, Any], common: dict[str, Any]
) -> Work:
    """Return what is to be done, from the options that were given."""
    chosen, others = (decoding, encoding) if decode else (encoding, decoding)
    for name in (name for name, value in others.items() if value is not None):
        direction = "encoding" if decode else "decoding: give --decode too"
        raise typer.BadParameter(f"--{name.replace('_', '-')} is for {direction}")
    given = {name: value for name, value in chosen.items() if value is not None} | common
    from ..batch.recode import Decode, Encode

    try:
        with as_usage():
            return Decode(**given) if decode else Encode(**given)
    except OutputError as error:
        raise typer.BadParameter(
            f"--to {decoding['to']}: no image format that can be written here"
        ) from error


def _engine(ray: str | None, jobs: int | None) -> Engine:
    if ray is None:
        from ..batch.local import Local

        return Local(jobs)
    from ..batch.cluster import Cluster

    return Cluster(ray, jobs)


def _tell(outcome: Outcome, dest: str, *, quiet: bool) -> int:
    """Say what failed and what the run comes to; return the exit status."""
    totals = outcome.totals
    for source, error in totals.failures:
        say("error", error if source in error else f"{source}: {error}")
    if totals.failed > len(totals.failures):
        say("error", f"{totals.failed - len(totals.failures)} more have failed: see {outcome.manifest}")
    if totals.dropped:
        what = "pictures lost something (alpha, frames ...) or are damaged"
        say("warning", f"{totals.dropped} {what}: see {outcome.manifest}")
    if not quiet:
        parts = [f"{totals.pictures} pictures"]
        parts += [f"{totals.failed} failed"] if totals.failed else []
        parts += [f"{totals.source_bytes} -> {totals.bytes} bytes"]
        parts += [f"{totals.bits / totals.pixels:.4f} bpp"] if totals.pixels else []
        speed = f" ({outcome.worked_on / outcome.seconds:.2f} images/s)" if outcome.worked_on else ""
        parts += [f"{outcome.worked_on} now{speed}"]
        tell(one_line(f"{dest}: {', '.join(parts)}"))
    return 1 if totals.failed else 0


class ShownProgress(Progress):
    """Shows notes on a line each, and on a terminal a bar with images that are done and that have failed.

    The number of all images is known if each file is one; of containers it is estimated from those that are
    open.
    """

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._total: int | None = None
        self._containers = self._opened = self._images = self._done = self._failed = 0

    def note(self, text: str) -> None:
        say("warning", text)

    def begin(self, files: int, *, pictures: bool) -> None:
        self._total, self._containers = (files, 0) if pictures else (None, files)
        if files:
            self.advanced(0, 0)

    def opened(self, pictures: int) -> None:
        if self._containers:
            self._opened += 1
            self._images += pictures
            self._total = max(round(self._images / self._opened * self._containers), self._images)

    def advanced(self, pictures: int, failed: int) -> None:
        self._done += pictures
        self._failed += failed
        self._bar.show(self._done, self._total, f"{self._failed} failed" if self._failed else "")
