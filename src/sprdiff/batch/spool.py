"""Results of a container that is not finished yet: a file for each piece of it, to which one worker adds.

A record is a line of JSON, the row, and the bytes of the output. Of a file that a kill has cut the whole records
count. They are copied when the work goes on: should the process that left them be alive after all, on another
machine, it writes into a file that has no name any more.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .recode import Row

_MAX_LINE = 2**20


class Spool:
    """The results of a piece, open for more.

    Attributes:
        count, failed: how many there are, and how many of them are failures.
    """

    def __init__(self, path: Path) -> None:
        """Go on after the last whole record.

        Raises:
            OSError: the system refuses.
        """
        self.count = self.failed = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        # Unbuffered: what is written survives the end of this process.
        self._file = open(own, "xb", buffering=0)  # noqa: SIM115 (closed by __exit__)
        try:
            for header, row, data in records(path):
                self._add(header, data, failed=bool(row["error"]))
            os.replace(own, path)
        except BaseException:
            self._file.close()
            own.unlink(missing_ok=True)
            raise

    def append(self, row: Row, data: bytes | None) -> None:
        """Add the result of the next picture; `data` is None if it has failed.

        Raises:
            OSError: the system refuses.
        """
        about = {"size": -1 if data is None else len(data), "crc": zlib.crc32(data or b"")}
        self._add(json.dumps(about).encode() + b" " + row.line(), data, failed=bool(row.error))

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _add(self, header: bytes, data: bytes | None, *, failed: bool) -> None:
        record = memoryview(header + (data or b""))
        while record:
            record = record[self._file.write(record) :]
        self.count += 1
        self.failed += failed


def records(path: Path) -> Iterator[tuple[bytes, dict[str, Any], bytes | None]]:
    """(header, row, output or None) of each whole record; nothing where there is no file."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        while header := file.readline(_MAX_LINE):
            record = _whole(header, file)
            if record is None:
                return
            yield (header, *record)


def _whole(header: bytes, file: BinaryIO) -> tuple[dict[str, Any], bytes | None] | None:
    try:
        about, end = json.JSONDecoder().raw_decode(header.decode())
        row = json.loads(header[end:])
        size, check = about["size"], about["crc"]
    except (ValueError, KeyError, TypeError):  # cut
        return None
    data = file.read(max(size, 0))
    whole = header.endswith(b"\n") and len(data) == max(size, 0) and zlib.crc32(data) == check
    return (row, None if size < 0 else data) if whole else None
