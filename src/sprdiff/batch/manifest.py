"""The manifest of a run: a Parquet file with one row for each picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..common.extras import need
from ..errors import BatchError

LISTED = 10
"""How many failures are kept, to be listed at the end."""
_ROWS = 4096


@dataclass(frozen=True)
class ManifestRow:
    """One picture in the manifest.

    Attributes:
        source, target: where the picture comes from and goes to; in containers ``file:member`` or
            ``file:row``.
        source_bytes, bytes: the sizes of the two.
        width, height: of the picture, in pixels.
        bpp: bits per pixel of the ``.sprd`` file.
        seconds: the time from the bytes of the one to the bytes of the other.
        dropped: what the picture has and the output lacks.
        error: why there is no output; what is not known then is None.
    """

    source: str
    target: str
    source_bytes: int | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    bpp: float | None = None
    seconds: float | None = None
    dropped: str = ""
    error: str = ""


_TYPES = {
    "source_bytes": "int64", "bytes": "int64", "width": "int32", "height": "int32", "bpp": "double",
    "seconds": "double"
}  # fmt: skip


@dataclass
class Totals:
    """The sums over the rows of a manifest.

    Attributes:
        pictures, failed: how many pictures there are, and how many of them have no output.
        source_bytes, bytes: of the pictures that have an output.
        pixels, bits: of the same pictures; `bits` are those of the ``.sprd`` files.
        dropped: how many pictures have something that their output lacks.
        failures: source and reason of the first failures.
    """

    pictures: int = 0
    failed: int = 0
    source_bytes: int = 0
    bytes: int = 0
    pixels: int = 0
    bits: float = 0.0
    dropped: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, row: ManifestRow) -> None:
        """Count a row."""
        self.pictures += 1
        if row.error:
            self.failed += 1
            if len(self.failures) < LISTED:
                self.failures.append((row.source, row.error))
            return
        pixels = (row.width or 0) * (row.height or 0)
        self.pixels += pixels
        self.bits += (row.bpp or 0) * pixels
        self.source_bytes += row.source_bytes or 0
        self.bytes += row.bytes or 0
        self.dropped += bool(row.dropped)


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> Totals:
    """Write rows to a Parquet file and add them up.

    Raises:
        BatchError: pyarrow is not installed.
        OSError: the system refuses to write the file.
    """
    arrow, parquet = need("pyarrow", "batch", BatchError), need("pyarrow.parquet", "batch", BatchError)
    schema = arrow.schema([(name, _TYPES.get(name, "string")) for name in ManifestRow.__dataclass_fields__])
    totals, left = Totals(), iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(left, _ROWS)):
            for row in some:
                totals.add(row)
            writer.write_table(arrow.Table.from_pylist([_as_text(row) for row in some], schema=schema))
    return totals


def _as_text(row: ManifestRow) -> dict[str, Any]:
    """Return the values of a row; a file name need not be valid Unicode, but text in Parquet must be."""
    values = asdict(row)
    return {
        k: v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v
        for k, v in values.items()
    }
