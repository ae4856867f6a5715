"""A whole comparison: every image of a folder goes through every codec at every target.

::

    photos, codecs, metrics ─ checked ─► ResultsFolder, held ─► units in processes ─► rows ─► figures of sets

Work whose results are in the folder is not done again, so a run that was stopped or killed can be continued.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import __version__
from ...common.processes import in_processes
from ..codecs.base import ImageCodec, MissingCodec
from ..metrics.catalogue import Weights, choose
from ..results import (
    FORMAT,
    CodecInfo,
    ImageInfo,
    Key,
    ResultsError,
    Row,
    Run,
    Skipped,
    read_sets,
    write_sets,
)
from ..targets import Target
from .folder import ResultsFolder, earlier_run, taken
from .photos import find_photos
from .sets import set_rows
from .unit import Unit, failed, run_unit

DEFAULT_RATES = (0.0138, 0.0203, 0.028)
"""The rates of SPRDiff's published figures on Kodak, in bits per pixel."""
DEFAULT_CODECS = (
    "sprdiff-tiny",
    "sprdiff-tiny@coarse",
    "jpeg",
    "webp",
    "avif",
    "jxl",
    "jpeg2000",
    "heic",
    "vvc",
)
_DIED = "its process died: out of memory, or crashed in a library"


class EvalProgress:
    """An observer of a run; this one ignores everything."""

    def note(self, text: str) -> None:
        """Receive a line that the user should see."""

    def begin(self, units: int, rows: int) -> None:
        """Receive the number of units of work (an image and a codec) and of rows to come; both are 0 if
        all is done."""

    def done(self, rows: Sequence[Row]) -> None:
        """Receive the rows of a finished unit, which are on the disk."""


@dataclass(frozen=True)
class EvalOutcome:
    """The results of a run.

    Attributes:
        rows: all rows of the given images, codecs and targets, earlier ones included.
        unreached: targets that no codec reaches with any image.
    """

    rows: tuple[Row, ...]
    unreached: tuple[Target, ...]

    def count(self, status: str) -> int:
        """Count the rows of a status."""
        return sum(row.status == status for row in self.rows)


def evaluate(
    folder: str | Path,
    *,
    codecs: Sequence[ImageCodec],
    out: str | Path,
    rates: Sequence[float] = DEFAULT_RATES,
    budgets: Sequence[int] = (),
    features: Path | None = None,
    metric_weights: Path | None = None,
    keep: bool = False,
    jobs: int = 1,
    limit: int | None = None,
    command: str = "",
    progress: EvalProgress | None = None,
) -> EvalOutcome:
    """Measure codecs on the images of a folder, and write the results into a folder, see `results`.

    Worker processes import the main module of the program: a script needs its ``if __name__ == "__main__"``.

    Args:
        folder: the originals.
        codecs: the codecs, see `codecs.parse_codecs`; those that cannot run here are left out, with a note.
        out: the folder of results: new, empty, or of an earlier run over the same images and metrics.
        rates: targets in bits per pixel; an empty list if there are only `budgets`.
        budgets: targets in bytes per picture.
        features: the weights of SqueezeNet, for the feature distance and the Fréchet distance.
        metric_weights: a folder of published weights that is searched before the usual places.
        keep: also store the files and the decoded images.
        jobs: how many processes work; with more than there are cores, the times are wrong.
        limit: use only the first so many images.
        command: the command line that is written down.
        progress: an observer.

    Raises:
        ImageError: the folder or an image cannot be used.
        ResultsError: `out` cannot be used; nothing in it has been changed then.
        OutputError: results cannot be written.
        WeightsError: `features` cannot be used.
        MissingCodec: no codec can run here.
        ValueError: a number is out of its range.
    """
    folder, out, progress = Path(folder), Path(out), progress or EvalProgress()
    targets = sorted(
        {*(Target(float(rate)) for rate in rates), *(Target(bytes=budget) for budget in budgets)}
    )
    if jobs < 1 or not targets:
        raise ValueError("jobs must be at least 1, and there must be a target")
    before = earlier_run(out)
    photos = find_photos(folder, limit=limit, known=before.images if before else ())
    weights = Weights(features, metric_weights)
    here, absent = _present(codecs)
    run = _describe(folder, photos, targets, here, absent, weights, command)
    _tell_skipped(run, progress)
    with taken(out, run) as results:
        _fill(results, _units(results, here, run, folder, weights, keep), jobs, progress)
        wanted = {
            (codec.name, photo.name, target) for codec in here for photo in photos for target in run.targets
        }
        return _outcome(run, [row for row in results.rows.values() if row.key in wanted])


def _present(codecs: Sequence[ImageCodec]) -> tuple[list[ImageCodec], list[Skipped]]:
    """Return the codecs that can run here, and the others with what they lack."""
    here, absent = [], []
    for codec in {codec.name: codec for codec in codecs}.values():
        error = codec.missing()
        if error is None:
            here.append(codec)
        else:
            absent.append(Skipped(codec.name, str(error)))
    if not here:
        raise MissingCodec(
            "; ".join(skipped.reason for skipped in absent) or "there are no codecs to compare"
        )
    return here, absent


def _describe(
    folder: Path,
    photos: list[ImageInfo],
    targets: Sequence[Target],
    codecs: Sequence[ImageCodec],
    absent: list[Skipped],
    weights: Weights,
    command: str,
) -> Run:
    metrics, skipped = choose(weights)
    return Run(
        format=FORMAT,
        sprdiff=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        folder=str(folder.resolve()),
        images=photos,
        rates=[target.bpp for target in targets if target.bpp is not None],
        codecs=[CodecInfo(codec.name, codec.version()) for codec in codecs],
        skipped_codecs=absent,
        metrics=metrics,
        skipped_metrics=skipped,
        commands=[command],
        budgets=[target.bytes for target in targets if target.bytes is not None],
    )


def _cpu() -> str:
    """Return the name of the processor; on Linux the platform module knows only the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _tell_skipped(run: Run, progress: EvalProgress) -> None:
    """Tell the observer which codecs and metrics are left out, and why."""
    for codec in run.skipped_codecs:
        progress.note(f"without {codec.name}: {codec.reason}")
    for reason in dict.fromkeys(skipped.reason for skipped in run.skipped_metrics):
        names = [skipped.name for skipped in run.skipped_metrics if skipped.reason == reason]
        progress.note(f"without {', '.join(names)}: {reason}")


def _units(
    results: ResultsFolder, codecs: Sequence[ImageCodec], run: Run, folder: Path, weights: Weights, keep: bool
) -> list[Unit]:
    """Return the work that is left, image by image, so that after a stop the results compare all codecs."""
    versions = {codec.name: codec.version for codec in run.codecs}
    metrics = tuple(metric.name for metric in run.metrics)
    units = []
    for photo in run.images:
        for codec in codecs:
            keys = {target: results.rows.get((codec.name, photo.name, target)) for target in run.targets}
            todo = tuple(target for target, row in keys.items() if row is None or row.status == "failed")
            unit = Unit(
                codec, versions[codec.name], folder, photo, todo, results.path, metrics, weights, keep
            )
            units += [unit] if todo else []
    return units


def _keys(unit: Unit) -> list[Key]:
    return [(unit.codec.name, unit.image.name, target) for target in unit.targets]


def _fill(results: ResultsFolder, units: Sequence[Unit], jobs: int, progress: EvalProgress) -> None:
    """Do all units of work; add their rows to the results as they are finished."""
    results.begin({key for unit in units for key in _keys(unit)})
    for note in results.notes:
        progress.note(note)
    progress.begin(len(units), sum(len(unit.targets) for unit in units))
    changed = set()
    for rows in _work(units, jobs):
        results.append(rows)
        progress.done(rows)
        changed |= {(row.codec, row.target) for row in rows}
    _finish(results, changed, progress)


def _work(units: Sequence[Unit], jobs: int) -> Iterator[list[Row]]:
    """Yield the rows of each unit when it is finished."""
    for unit, rows in in_processes(run_unit, units, jobs):
        yield [failed(unit, target, _DIED) for target in unit.targets] if rows is None else rows


def _finish(results: ResultsFolder, changed: Collection[tuple[str, Target]], progress: EvalProgress) -> None:
    try:
        before = read_sets(results.path)
    except ResultsError:  # the figures can be computed again at any time
        before = []
    sets = set_rows(results.path, results.run, results.rows.values(), before=before, changed=changed)
    write_sets(results.path, sets)
    for note in dict.fromkeys(f"no {name}: {why}" for row in sets for name, why in row.notes.items()):
        progress.note(note)


def _outcome(run: Run, rows: Sequence[Row]) -> EvalOutcome:
    reached = {row.target for row in rows if row.status != "unreached"}
    return EvalOutcome(tuple(rows), tuple(target for target in run.targets if target not in reached))
