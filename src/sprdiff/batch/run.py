"""A whole run: looked at, planned, worked on, and written down.

What the folder of the run says is finished is not done again, so a run that was stopped, even by a kill, goes on
where it was when the same command is given again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import __version__
from ..errors import BatchError, OutputError
from ..fileinfo import model_info
from .folder import (
    FORMAT,
    JOURNAL,
    check_plan,
    check_same,
    default_folder,
    held,
    read_plan,
    read_run,
    staging_of,
    write_plan,
    write_run,
)
from .journal import Journal
from .local import Engine, Local
from .manifest import Totals, write_manifest
from .needs import need
from .outputs import place
from .recode import Work, as_record
from .source import MANIFEST, PICTURES, STDIN, Collection, Unit, in_words, look_at
from .stores import absolute, is_remote, is_web, join, reason, size_of
from .watcher import Watcher
from .work import Job

_SPOOLS, _FETCHED = "spools", "fetched"


@dataclass(frozen=True)
class Outcome:
    """What has become of a collection.

    Attributes:
        totals: of all its pictures, those of earlier runs among them.
        manifest: its address.
        worked_on: how many pictures this run has looked at, and in how many seconds.
    """

    totals: Totals
    manifest: str
    worked_on: int
    seconds: float


def batch(
    source: str,
    dest: str,
    work: Work,
    *,
    engine: Engine | None = None,
    kind: str | None = None,
    column: str | None = None,
    output_column: str | None = None,
    force: bool = False,
    folder: Path | None = None,
    command: str = "",
    watcher: Watcher | None = None,
) -> Outcome:
    """Encode or decode a collection into a folder or prefix.

    Worker processes import the main module of the program: a script needs its ``if __name__ == "__main__"``.

    Args:
        source: a folder or prefix, a list (``.txt``, or ``-`` for standard input), ``.tar`` or ``.parquet``; a path
            or an address.
        dest: folder or prefix of the outputs, made if need be; goes on there.
        engine: what does the work; None: the cores of this machine.
        kind: one of `source.KINDS`, where names leave it open.
        column, output_column: of the pictures in Parquet, before and after.
        force: overwrite outputs that exist.
        folder: for what is needed to go on; None: in `dest`, or, of a remote one, below ``~/.local/state``.
        command: what is written down as having been run.
        watcher: told how it goes.

    Raises:
        BatchError: the source or the destination cannot be used, or they are of another run.
        OutputError: outputs are there already, or something cannot be written.
        WeightsError: the networks cannot be loaded.
    """
    need("pyarrow")
    watcher = watcher or Watcher()
    start = time.monotonic()
    source = source if source == STDIN else absolute(source)
    dest = absolute(dest)
    if is_web(dest):
        raise BatchError(f"{dest}: web servers take no files")
    run: dict[str, Any] = {"format": FORMAT, "source": source, "dest": dest, **as_record(work)}
    run |= {"model": model_info(work.weights).networks, "as": kind, "column": column, "output-column": output_column}
    run |= {"sprdiff": __version__, "command": command, "force": force}
    collection = look_at(source, work, kind=kind, dest=dest)
    folder = folder or default_folder(dest)
    with held(folder, command):
        run, units = _planned(folder, run, collection, watcher)
        shared = None if is_remote(dest) else str(folder.resolve() / _SPOOLS)
        staging = staging_of(dest)
        job = Job(collection.kind, work, bool(run["force"]), shared, staging, column, output_column)
        journal = Journal(folder / JOURNAL, units)
        manifest = join(dest, MANIFEST)
        try:
            worked_on = _work(job, journal, folder, engine or Local(), watcher)
        finally:  # after Ctrl-C too: what is there is there
            totals = _write_manifest(journal, folder, manifest, staging)
            journal.close()
            _clean(folder, staging)
    return Outcome(totals, manifest, worked_on, time.monotonic() - start)


def _planned(folder: Path, run: dict[str, Any], collection: Collection, watcher: Watcher) -> tuple[dict[str, Any], int]:
    """What this run is told together with earlier ones, and how many units it has.

    Raises:
        BatchError: the earlier run was told something else, or the source has changed.
        OutputError: outputs are there already.
    """
    dest = str(run["dest"])
    before = read_run(folder)
    if before is None:
        manifest = join(dest, MANIFEST)
        if not run["force"] and size_of(manifest) is not None:
            raise OutputError(f"{manifest} already exists, of a run that cannot go on; only -f (force) overwrites it")
        units = write_plan(folder, collection.units(dest), force=bool(run["force"]))
    else:
        check_same(folder, before, run)
        units = int(before["units"])
        check_plan(folder, collection.units(dest))
        run["force"] = run["force"] or before["force"]
    if collection.passed_over:
        watcher.note(f"passed over: {in_words(collection.passed_over)}")
    run["units"] = units
    write_run(folder, run)
    return run, units


def _unfinished(folder: Path, journal: Journal) -> Iterator[Unit]:
    return (unit for unit in read_plan(folder) if not journal.is_finished(unit.n))


def _work(job: Job, journal: Journal, folder: Path, engine: Engine, watcher: Watcher) -> int:
    """Do what is not finished; how many pictures that were."""
    left = journal.units - journal.finished
    watcher.begin(left, pictures=job.kind == PICTURES)
    pictures = 0
    if left:
        with closing(engine.run(job, _unfinished(folder, journal), folder, watcher)) as results:
            for unit, result in results:
                journal.append(unit.n, result.lines, again=result.again)
                pictures += result.pictures
    shutil.rmtree(folder / _SPOOLS, ignore_errors=True)
    return pictures


def _clean(folder: Path, staging: Path | None) -> None:
    """Remove what nothing goes on from."""
    shutil.rmtree(folder / _FETCHED, ignore_errors=True)
    if staging is not None:
        shutil.rmtree(staging, ignore_errors=True)
        if staging.parent != folder:
            with suppress(OSError):
                staging.parent.rmdir()


def _write_manifest(journal: Journal, folder: Path, manifest: str, staging: Path | None) -> Totals:
    with TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "manifest"
        try:
            totals = write_manifest(path, journal.rows())
        except OSError as error:
            raise OutputError(f"{manifest} cannot be written: {reason(error)}") from error
        place(path, manifest, staging=staging, force=True)
    return totals
