"""The manifest: one row for each picture, as Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .needs import need

LISTED = 10
"""Failures that are kept for being told."""
_PIECE = 4096


@dataclass
class Totals:
    """What the rows of a manifest come to.

    Attributes:
        pictures, failed: how many there are, and how many of them have no output.
        source_bytes, bytes: of those that have.
        pixels, bits: of those that have; `bits` of the ``.sprd`` files.
        dropped: how many pictures had something that their file has not.
        failures: (source, reason) of the first ones.
    """

    pictures: int = 0
    failed: int = 0
    source_bytes: int = 0
    bytes: int = 0
    pixels: int = 0
    bits: float = 0.0
    dropped: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Count a row."""
        self.pictures += 1
        if row["error"]:
            self.failed += 1
            if len(self.failures) < LISTED:
                self.failures.append((row["source"], row["error"]))
            return
        pixels = row["width"] * row["height"]
        self.pixels += pixels
        self.bits += row["bpp"] * pixels
        self.source_bytes += row["source_bytes"]
        self.bytes += row["bytes"]
        self.dropped += bool(row["dropped"])


def write_manifest(path: Path, rows: Iterable[dict[str, Any]]) -> Totals:
    """Write rows, as `Row.line` has them, to a Parquet file, and add them up.

    Raises:
        BatchError: pyarrow is not installed.
        OSError: the system refuses to write it.
    """
    arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    types = {"source_bytes": "int64", "bytes": "int64", "width": "int32", "height": "int32"}
    types |= {"bpp": "double", "seconds": "double"}
    names = ("source", "target", *types, "dropped", "error")
    schema = arrow.schema([(name, types.get(name, "string")) for name in names])
    totals = Totals()
    with parquet.ParquetWriter(path, schema) as writer:
        for piece in _pieces(rows):
            for row in piece:
                totals.add(row)
            writer.write_table(arrow.Table.from_pylist([_clean(row) for row in piece], schema=schema))
    return totals


def _pieces(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while piece := list(itertools.islice(iterator, _PIECE)):
        yield piece


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    """Names of files may be no Unicode; Parquet's text must."""
    return {k: v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for k, v in row.items()}
