"""A whole run: it looks at the source, works on the files that are not done, and writes the manifest.

A file is done when its output is there as the record of the run describes it, made from the source as it is
now and with the settings of now. What is done is not done again, so a run that was stopped in any way, even
by a kill, goes on when the same command is given again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..common.extras import need
from ..common.messages import reason
from ..common.remote import absolute, is_remote, is_web, join
from ..errors import BatchError, OutputError
from .collection import MANIFEST, PICTURES, STDIN, Item, in_words, look_at
from .local import Local
from .manifest import Totals, write_manifest
from .progress import Progress
from .recode import Work, as_record
from .records import Records
from .state import RECORDS, default_folder, opened, staging_folder
from .storage import Stamp, place, stat, unchanged, walk
from .work import Result, Results, RunOptions, scratch

_FREE = frozenset({"command"})
"""Settings that may differ between runs that share a destination."""
_SHOWN = 3
_TOGETHER = 256
_THREADS = 16
"""How many files of earlier runs are looked at at once, each by a thread of its own: each may take a
request."""


class Engine(Protocol):
    """What works on the files of a run."""

    def run(self, options: RunOptions, items: Sequence[Item], progress: Progress) -> Results:
        """Yield each file with its result, in the order of completion.

        Raises:
            SprdiffError: no file can be worked on.
        """


@dataclass(frozen=True)
class Outcome:
    """What has become of a collection.

    Attributes:
        totals: of all its pictures, those of earlier runs among them.
        manifest: the address of the manifest.
        worked_on: how many pictures this run has worked on.
        seconds: how long this run took.
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
    progress: Progress | None = None,
) -> Outcome:
    """Encode or decode a collection into a folder or prefix.

    Worker processes import the main module of the program, so a script needs its
    ``if __name__ == "__main__"``.

    Args:
        source: a folder or prefix, a list (``.txt``, or ``-`` for standard input), ``.tar`` or ``.parquet``;
            a path or an address.
        dest: the folder or prefix of the outputs; a run that was stopped goes on there.
        engine: does the work; None: the cores of this machine.
        kind: one of `collection.KINDS`, where the names of the files leave it open.
        column, output_column: of the pictures in Parquet, before and after.
        force: overwrite outputs that exist, and begin anew where the settings differ from those of an earlier
            run.
        folder: for what is needed to go on; None: in `dest` or, of a remote one, below ``~/.local/state``.
        command: what is noted as having been run.
        progress: is told how the run goes.

    Raises:
        BatchError: the source or the destination cannot be used, or they belong to another run.
        OutputError: outputs exist already, or something cannot be written.
        WeightsError: the networks cannot be loaded.
    """
    need("pyarrow", "batch", BatchError)
    progress, start = progress or Progress(), time.monotonic()
    source, dest = source if source == STDIN else absolute(source), _destination(dest)
    settings = {"source": source, "dest": dest, **as_record(work), "as": kind, "column": column}
    settings |= {"output-column": output_column, "command": command}
    collection = look_at(source, dest, work, kind)
    items, find, manifest = collection.items, _finder(dest), join(dest, MANIFEST)
    folder, staging = folder or default_folder(dest), staging_folder(dest)
    if not force and not (folder / RECORDS).exists():
        _check_free(items, manifest, find)
    options = RunOptions(collection.kind, work, force, staging, column, output_column)
    with opened(folder, dest, command) as records:
        _begin(records, settings, force=force)
        if collection.passed_over:
            progress.note(f"passed over: {in_words(collection.passed_over)}")
        try:
            todo = list(_unfinished(records, items, find))
            worked_on = _work(records, options, todo, engine or Local(), progress)
        finally:  # after Ctrl-C too, the manifest says what is there
            totals = _write_manifest(records, items, manifest, staging)
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
    return Outcome(totals, manifest, worked_on, time.monotonic() - start)


def _destination(dest: str) -> str:
    """Return the address of a destination that accepts files."""
    if is_web(found := absolute(dest)):
        raise BatchError(f"{found}: web servers take no files")
    return found


def _finder(dest: str) -> Callable[[str], Stamp | None]:
    """Return a function that says what is at a target; a remote destination is listed once for that."""
    if not is_remote(dest):
        return lambda target: stat(target) if target else None
    found = dict[str, Stamp]()
    try:
        for folder, files, _ in walk(dest):
            found |= {join(dest, f"{folder}/{name}".lstrip("/")): stamp for name, stamp in files.items()}
    except BatchError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
    return found.get


def _check_free(items: Sequence[Item], manifest: str, find: Callable[[str], Stamp | None]) -> None:
    """Raise OutputError if a first run finds a manifest or outputs: they belong to somebody else."""
    if find(manifest):
        raise OutputError(
            f"{manifest} already exists, of a run that cannot go on; only -f (force) overwrites it"
        )
    there = [item.target for item in items if find(item.target)]
    if there:
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        exist = "already exists" if len(there) == 1 else "already exist"
        raise OutputError(f"{', '.join(there[:_SHOWN])}{more} {exist}; only -f (force) overwrites")


def _begin(records: Records, settings: dict[str, Any], *, force: bool) -> None:
    """Note the settings of this run; if an earlier one had others, raise BatchError or forget its outcome."""
    before = records.settings() or settings
    names = dict.fromkeys([*settings, *before])
    different = [name for name in names if name not in _FREE and settings.get(name) != before.get(name)]
    if different and not force:
        old, new = (
            "none" if told.get(different[0]) is None else told[different[0]] for told in (before, settings)
        )
        which = f"{settings['dest']} is of a run with {different[0]} {old}, now {new}"
        raise BatchError(f"{which}: use another destination, or -f to begin anew")
    records.begin(settings, anew=bool(different))


def _unfinished(
    records: Records, items: Sequence[Item], find: Callable[[str], Stamp | None]
) -> Iterator[Item]:
    """Yield the files that are to be worked on, with what is known of their outputs."""

    def look(item: Item, before: Result | None) -> Item | None:
        own = ""
        with suppress(BatchError):  # the worker will say what cannot be read
            if before and before.output and unchanged(item.target, before.output, find(item.target)):
                own = before.output.sha256
                now = Stamp(item.size, item.time) if item.time else stat(item.source)
                if before.source and unchanged(item.source, before.source, now):
                    return None
        return replace(item, own=own)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="look") as pool:
        for start in range(0, len(items), _TOGETHER):
            some = items[start : start + _TOGETHER]
            yield from filter(None, pool.map(look, some, map(records.get, some)))


def _work(
    records: Records, options: RunOptions, todo: Sequence[Item], engine: Engine, progress: Progress
) -> int:
    """Work on files and note what becomes of them; return how many pictures that were."""
    pictures = 0
    progress.begin(len(todo), pictures=options.kind == PICTURES)
    if todo:
        with closing(engine.run(options, todo, progress)) as results:
            for item, result in results:
                records.put(item, result)
                pictures += len(result.rows)
    return pictures


def _write_manifest(records: Records, items: Sequence[Item], manifest: str, staging: Path | None) -> Totals:
    results = (result for result in map(records.get, items) if result)
    with scratch(staging) as folder:
        path = folder / "manifest"
        try:
            totals = write_manifest(path, (row for result in results for row in result.rows))
        except OSError as error:
            raise OutputError(f"{manifest} cannot be written: {reason(error)}") from error
        place(path, manifest, force=True)
    return totals
