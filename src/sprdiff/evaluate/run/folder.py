"""The folder of results while a run works on it: one run at a time, and only runs of the same comparison."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from ...common.files import HOLDER, LOCK, describe, held, write_atomic
from ...common.structs import to_json
from ...errors import OutputError
from ..metrics.tensors import need
from ..results import (
    ROWS,
    RUN,
    CodecInfo,
    Key,
    ResultsError,
    Row,
    Run,
    numbered_rows,
    read_run,
    write_run,
)

_OURS = {LOCK, HOLDER}


def earlier_run(folder: Path) -> Run | None:
    """Return what was run into a folder before; None if it is empty or does not exist.

    Raises:
        ResultsError: it holds something else than results.
    """
    if (folder / RUN).exists():
        return read_run(folder)
    try:
        if folder.exists() and not {entry.name for entry in folder.iterdir()} <= _OURS:
            raise ResultsError(f"{folder} is not empty and holds no results of sprdiff eval")
    except OSError as error:
        raise ResultsError(f"{folder} is no folder that can be read: {describe(error)}") from error
    return None


class ResultsFolder:
    """A folder of results that a run holds; `taken` makes it.

    Attributes:
        path: the folder.
        rows: the finished rows by key.
        notes: what had to be repaired, one line each.
    """

    def __init__(self, path: Path, run: Run) -> None:
        """Compare the run with what is there; if it does not fit, nothing is changed."""
        self.path = path
        self.notes: list[str] = []
        before = earlier_run(path)
        stored, self._cut = numbered_rows(path)
        _check_versions(path, [row for row, _ in stored], run.codecs)
        self.run = run if before is None else _joined(path, before, run)
        if before is not None and before.cpu != run.cpu:
            self.notes.append(
                f"earlier rows were measured on another machine ({before.cpu}): times do not compare"
            )
        self._stored = stored
        self.rows = {row.key: row for row, _ in stored}

    def begin(self, again: Collection[Key]) -> None:
        """Write down the run, and drop a line that was cut off and the failed rows that are tried again."""
        write_run(self.path, self.run)
        dropped = {key for key in again if key in self.rows}
        if self._cut:
            self.notes.append(f"{self.path / ROWS}: the last line was cut and is dropped ({self._cut} bytes)")
        if self._cut or dropped:
            kept = [line + b"\n" for row, line in self._stored if row.key not in dropped]
            write_atomic(self.path / ROWS, b"".join(kept), force=True)
        for key in dropped:
            del self.rows[key]
        self._cut, self._stored = 0, []

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows to the file; when this returns, they are on the disk.

        Raises:
            OutputError: they cannot be written.
        """
        assert not any(row.key in self.rows for row in rows)
        try:
            with open(self.path / ROWS, "ab", buffering=0) as file:
                lines = b"".join(map(to_json, rows))
                if file.write(lines) != len(lines):
                    raise OutputError(f"{self.path / ROWS} cannot be written: no space left on device")
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path / ROWS} cannot be written: {describe(error)}") from error
        self.rows |= {row.key: row for row in rows}


@contextmanager
def taken(path: Path, run: Run) -> Iterator[ResultsFolder]:
    """Hold a folder of results, so that no other run can use it; create it if needed.

    Raises:
        ResultsError: another run holds it (the message says which), or it belongs to another comparison or is
            damaged. Nothing in it has been changed then.
        OutputError: it cannot be created.
    """
    earlier_run(path)  # write nothing into a folder that is not ours
    with held(path, run.commands[-1], need("filelock"), ResultsError):
        yield ResultsFolder(path, run)


def _check_versions(path: Path, rows: Sequence[Row], codecs: Sequence[CodecInfo]) -> None:
    versions = {codec.name: codec.version for codec in codecs}
    for row in rows:
        now = versions.get(row.codec, row.version)
        if row.version != now:
            raise ResultsError(
                f"{path} holds rows of {row.codec} {row.version!r}, now it is {now!r}: use another folder"
            )


def _joined(path: Path, before: Run, run: Run) -> Run:
    """Return the description of both runs together.

    Raises:
        ResultsError: their rows are not comparable; the message names the difference.
    """
    difference = _images_differ(before, run) or _metrics_differ(before, run)
    if difference:
        raise ResultsError(f"{path} is of another comparison: {difference}; use another folder")
    codecs = {codec.name: codec for codec in [*before.codecs, *run.codecs]}
    return replace(
        run,
        rates=sorted({*before.rates, *run.rates}),
        codecs=list(codecs.values()),
        commands=list(dict.fromkeys([*before.commands, *run.commands])),
        budgets=sorted({*before.budgets, *run.budgets}),
    )


def _images_differ(before: Run, run: Run) -> str:
    old = {image.name: image.sha256 for image in before.images}
    new = {image.name: image.sha256 for image in run.images}
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            return f"it is without {name}"
        if name not in new:
            return f"it has {name}, which is not among these images"
        if old[name] != new[name]:
            return f"{name} is another picture now"
    return ""


def _metrics_differ(before: Run, run: Run) -> str:
    old = {metric.name: metric for metric in before.metrics}
    new = {metric.name: metric for metric in run.metrics}
    reasons = {skipped.name: f" ({skipped.reason})" for skipped in run.skipped_metrics}
    for name in dict.fromkeys([*old, *new]):
        if name not in old:
            return f"it was measured without {name}"
        if name not in new:
            return f"it was measured with {name}, which is not at hand now{reasons.get(name, '')}"
        if old[name] != new[name]:
            was, now = (f"{known[name].source}, {known[name].weights}" for known in (old, new))
            return f"{name} was {was}; now {now}"
    return ""
