"""The record of a run: an SQLite file that holds its settings and what has become of each file.

It belongs to one run at a time (`state.opened`). After a kill all that was noted is there; after a power cut
the last notes may be missing, and what they were about is worked on once more.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.messages import reason
from ..errors import BatchError
from .collection import Item
from .work import Result

_VERSION = 1
# The run has a lock of its own, so SQLite needs none. With the write-ahead log, notes need no flush of the
# disk.
_SCHEMA = f"""
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA user_version = {_VERSION};
CREATE TABLE IF NOT EXISTS run AS SELECT hex(randomblob(16)) AS id, NULL AS settings;
CREATE TABLE IF NOT EXISTS files (source TEXT PRIMARY KEY, target TEXT, result TEXT);
"""


class Records:
    """The record of a run, open until it is closed."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make a new one.

        Raises:
            BatchError: the file is damaged, of another version of sprdiff, or cannot be written.
        """
        self._path = path
        with self._told():
            self._db = sqlite3.connect(path, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise BatchError(f"{path} is of another version of sprdiff: give another folder with --work")
            self._db.executescript(_SCHEMA)

    def id(self) -> str:
        """Return what tells this file from the records of all other runs."""
        return str(self._ask("SELECT id FROM run")[0])

    def settings(self) -> dict[str, Any] | None:
        """Return the settings of the run; None if it has never begun."""
        (text,) = self._ask("SELECT settings FROM run")
        return None if text is None else json.loads(text)

    def begin(self, settings: dict[str, Any], *, anew: bool) -> None:
        """Note the settings of a run; `anew` forgets what has become of the files."""
        self._ask("UPDATE run SET settings = ?", json.dumps(settings))
        if anew:
            self._ask("DELETE FROM files")

    def get(self, item: Item) -> Result | None:
        """Return what has become of a file that had the same target; None if that is not known."""
        found = self._ask("SELECT result FROM files WHERE source = ? AND target = ?", *_key(item))
        return Result.from_json(found[0]) if found else None

    def put(self, item: Item, result: Result) -> None:
        """Note what has become of a file."""
        self._ask("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", *_key(item), result.to_json())

    def close(self) -> None:
        """Bring everything to the disk."""
        with self._told():
            self._db.close()

    def _ask(self, query: str, *values: str) -> Any:
        with self._told():
            return self._db.execute(query, values).fetchone()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BatchError(f"{self._path} cannot be used: {reason(error)}") from error


def _key(item: Item) -> tuple[str, str]:
    # A file name need not be valid Unicode, but text in SQLite must be.
    return json.dumps(item.source), json.dumps(item.target)
