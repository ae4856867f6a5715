"""The folder of a run: held by one run at a time, with what it was told and the plan it made."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common import files
from ..common.files import LOCK, write_atomic
from ..errors import BatchError, OutputError
from .needs import need
from .source import Unit
from .stores import OWN, is_remote, join, names_in, reason

RUN, PLAN, JOURNAL = "run.json", "plan.jsonl", "journal.jsonl"
FORMAT = 1
_FREE = frozenset({"command", "force", "sprdiff", "units"})
"""What may differ between the runs that share a folder."""
_SHOWN = 3


def default_folder(dest: str) -> Path:
    """Where a run keeps what it needs to go on: in the destination, or, of a remote one, with the user."""
    if not is_remote(dest):
        return Path(join(dest, OWN))
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "sprdiff" / "batch" / hashlib.sha256(dest.encode()).hexdigest()[:16]


def staging_of(dest: str) -> Path | None:
    """Where outputs of a local destination are made: on its disk, within reach of all workers that reach it."""
    return None if is_remote(dest) else Path(join(dest, OWN)) / "staged"


@contextmanager
def held(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder, made if need be, against other runs.

    Raises:
        BatchError: another run holds it; the message says which.
        OutputError: it cannot be made.
    """
    taken = False
    try:
        with files.held(folder, command, need("filelock"), BatchError):
            taken = True
            yield
    finally:
        if taken and not (folder / RUN).exists():  # it came to nothing
            with suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()
                folder.parent.rmdir()  # the destination, should it be empty


def read_run(folder: Path) -> dict[str, Any] | None:
    """What the run was told that this folder is of; None if there was none.

    Raises:
        BatchError: it cannot be read.
    """
    if not (folder / RUN).exists():
        return None
    try:
        run = json.loads((folder / RUN).read_bytes())
        if run["format"] != FORMAT:
            raise BatchError(f"{folder} is of another version of sprdiff ({run['sprdiff']}): give another with --work")
        return dict(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BatchError(f"{folder / RUN} cannot be read: {reason(error)}") from error


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to mix what was told differently.

    Raises:
        BatchError: it names the first difference.
    """
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        if name not in _FREE and old != new:
            told = f"{name} {_shown(old)}, now {_shown(new)}"
            raise BatchError(f"{folder} is of a run with {told}: use another destination")


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Note what the run was told.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomic(folder / RUN, json.dumps(run, indent=1).encode() + b"\n", force=True)


def write_plan(folder: Path, units: Iterable[Unit], *, force: bool) -> int:
    """Note all units; how many there are.

    Raises:
        OutputError: outputs are there already and not `force`, or it cannot be written; then there is no plan.
    """
    count, occupied = 0, _Occupied()
    partial = folder / f"{PLAN}.tmp"
    try:
        with open(partial, "w", encoding="ascii") as file:
            for unit in units:
                if not force:
                    occupied.check(unit)
                file.write(_line(unit))
                count += 1
        occupied.refuse()
        os.replace(partial, folder / PLAN)
    except OSError as error:
        raise OutputError(f"{partial} cannot be written: {reason(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def read_plan(folder: Path) -> Iterator[Unit]:
    """The units that were noted."""
    with open(folder / PLAN, encoding="ascii") as file:
        yield from (Unit(**json.loads(line)) for line in file)


def check_plan(folder: Path, units: Iterable[Unit]) -> None:
    """Refuse to go on with a source that has changed.

    Raises:
        BatchError: it names the first difference.
    """
    for before, now in itertools.zip_longest(read_plan(folder), units):
        if before == now:
            continue
        if now is None:
            what = f"{before.source} is gone"
        elif before is None:
            what = f"{now.source} is new"
        elif before.source != now.source:
            what = f"{now.source} is where {before.source} was"
        else:
            what = f"{now.source} has changed"
        raise BatchError(f"the source is not what it was when this run began: {what}; use another destination")


class _Occupied:
    """Collects the outputs of a plan that are there already, folder after folder."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []
        self._folder = ""
        self._names: set[str] = set()

    def check(self, unit: Unit) -> None:
        """Look whether a unit's output is there."""
        folder, _, name = unit.target.replace(os.sep, "/").rpartition("/")
        if not unit.target:
            return
        if folder != self._folder:
            self._folder, self._names = folder, names_in(folder)
        if name in self._names:
            self.count += 1
            self._first += [unit.target] if len(self._first) < _SHOWN else []

    def refuse(self) -> None:
        """Raise OutputError if there were any."""
        if self.count:
            more = f" and {self.count - len(self._first)} more" if self.count > len(self._first) else ""
            exist = "already exists" if self.count == 1 else "already exist"
            raise OutputError(f"{', '.join(self._first)}{more} {exist}; only -f (force) overwrites")


def _line(unit: Unit) -> str:
    return json.dumps(asdict(unit), separators=(",", ":")) + "\n"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
