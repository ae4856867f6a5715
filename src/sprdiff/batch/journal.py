"""What is finished, as a file that only grows: rows of pictures, and after those of a unit the line that ends it.

{"source":"a.jpg", ...}        rows of unit 0
{"end":0,"again":false}        it is finished; what follows the last such line does not count
"""

from __future__ import annotations

import json
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import BatchError, OutputError
from .stores import reason

_SYNC = 1.0
"""Seconds between flushes to the disk: a killed process loses nothing, a power cut at most so much."""


class Journal:
    """The journal of a run, with eight bytes of memory for each unit.

    Attributes:
        units: how many there are.
        finished: how many of them are done and need not be tried again.
    """

    def __init__(self, path: Path, units: int) -> None:
        """Open it, and drop what a kill has left after its last finished unit.

        Raises:
            BatchError: it is not the journal of a run of so many units.
            OutputError: it cannot be written.
        """
        self.path, self.units = path, units
        self.finished = 0
        self._places = array("q", [-1]) * units
        self._again = bytearray(units)
        try:
            self._file = open(path, "a+b")  # noqa: SIM115 (open for as long as the run)
            try:
                self._file.truncate(self._scan())
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {reason(error)}") from error
        self._synced = time.monotonic()

    def is_finished(self, n: int) -> bool:
        """Whether a unit is done and need not be tried again."""
        return self._places[n] >= 0 and not self._again[n]

    def append(self, n: int, lines: Iterable[bytes], *, again: bool = False) -> None:
        """Add a finished unit.

        Args:
            lines: its rows, each a line of JSON.
            again: a later run shall try it once more.

        Raises:
            OutputError: the system refuses to write it.
        """
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.writelines(lines)
            self._file.write(json.dumps({"end": n, "again": again}).encode() + b"\n")
            self._file.flush()
            if time.monotonic() > self._synced + _SYNC:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {reason(error)}") from error
        self._note(n, place, again)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of all units that have been tried, in the order of the plan; of several tries the last."""
        with open(self.path, "rb") as file:
            for place in self._places:
                if place >= 0:
                    file.seek(place)
                    for row in iter(lambda: json.loads(file.readline()), None):
                        if "end" in row:
                            break
                        yield row

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Bring everything to the disk."""
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _scan(self) -> int:
        """Length of what is finished."""
        self._file.seek(0)
        whole = place = 0
        for line in self._file:
            place += len(line)
            end = _end_of(line)
            if end is not None:
                n, again = end
                if not 0 <= n < len(self._places):
                    raise BatchError(f"{self.path} is the journal of another run")
                self._note(n, whole, again)
                whole = place
        return whole

    def _note(self, n: int, place: int, again: bool) -> None:
        self.finished -= self.is_finished(n)
        self._places[n], self._again[n] = place, again
        self.finished += self.is_finished(n)


def _end_of(line: bytes) -> tuple[int, bool] | None:
    if not line.startswith(b'{"end":') or not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        return int(record["end"]), bool(record["again"])
    except (ValueError, KeyError, TypeError):
        return None
