"""Parquet files with a column of pictures: it is replaced, the other columns are copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.files import open_regular
from ..errors import BatchError, ImageError
from .needs import need
from .pages import rows_together
from .recode import Work
from .stores import reason

_SHARE = 64
"""A row group is cut into so many pieces at most: every worker reads it from its start up to its piece."""
_PIECE = 16
_BATCH = 16
_FLUSH = 64 * 2**20
"""Bytes of outputs that are held before they become a row group."""
_NAMES = {"encode": ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "bytes"), "decode": ("sprd",)}
_BUFFER = 2**20
_SPECIFIC = (b"huggingface", b"pandas", b"ARROW:schema")  # they describe the columns as they were


@dataclass(frozen=True)
class Rows:
    """Some rows of a table, for a worker.

    Attributes:
        group: number of the row group. first: the first row's place in it. start: its place in the file.
        together: rows that may be in memory at a time.
    """

    column: str
    group: int
    first: int
    start: int
    count: int
    together: int

    def __len__(self) -> int:
        return self.count

    def label(self, index: int) -> tuple[str, str]:
        """Names of a picture and of its output."""
        return str(self.start + index), str(self.start + index)

    def read(self, path: Path, start: int) -> Iterator[bytes | ImageError]:
        """The files of the pictures from the start-th on, or why there is none.

        Raises:
            BatchError: the table cannot be read.
        """
        first, last, place = self.first + start, self.first + self.count, 0
        with _open(path) as file:
            for batch in _batches(path, file, self.group, [self.column], self.together):
                for index in range(max(first - place, 0), min(last - place, len(batch))):
                    yield _picture(batch.column(0)[index])
                place += len(batch)
                if place >= last:
                    return


class Table:
    """A table and what it is to become.

    Attributes:
        count: how many rows it has.
    """

    def __init__(self, path: Path, work: Work, column: str | None = None, output_column: str | None = None) -> None:
        """Look at its schema.

        Args:
            column: of the pictures; None: the one that is called like it.
            output_column: what it is called afterwards; None: ``sprd`` or ``image``.

        Raises:
            BatchError: it is no Parquet file, has no such column, or would unpack to too much.
        """
        self.path = path
        with _open(path) as file:
            schema = file.schema_arrow
            if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
                raise BatchError(f"{path.name} has the column {twice[0]} twice")
            self._together = rows_together(path, file.metadata, _BATCH)
            self._groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._column = _column(path, schema, work, column)
        self._output = output_column or ("sprd" if work.verb == "encode" else "image")
        if self._output in schema.names and self._output != self._column:
            raise BatchError(f"{path.name} has a column {self._output} already: name another with --output-column")
        self._others = [name for name in schema.names if name != self._column]
        self._schema = _replaced(schema, self._column, self._output)
        self.count = sum(self._groups)

    def pieces(self) -> list[Rows]:
        """Its rows in order, some for each worker."""
        found, start = [], 0
        for group, rows in enumerate(self._groups):
            size = max(_PIECE, -(-rows // _SHARE))
            for first in range(0, rows, size):
                count = min(size, rows - first)
                found.append(Rows(self._column, group, first, start + first, count, self._together))
            start += rows
        return found

    def assemble(self, outputs: Iterator[bytes | None], out: Path) -> None:
        """Write the table's successor, its pictures replaced (None: null).

        Raises:
            BatchError: the table cannot be read.
            OSError: it cannot be written.
        """
        arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
        with _open(self.path) as file, parquet.ParquetWriter(out, self._schema) as writer:
            for group, rows in enumerate(self._groups):
                held, size = [], 0
                for others, count in self._copied(file, group, rows):
                    made = [next(outputs) for _ in range(count)]
                    held.append(self._batch(others, made))
                    size += sum(len(data or b"") for data in made)
                    if size > _FLUSH:
                        writer.write_table(arrow.Table.from_batches(held, self._schema))
                        held, size = [], 0
                if held:
                    writer.write_table(arrow.Table.from_batches(held, self._schema))

    def _batch(self, others: list[Any], made: list[bytes | None]) -> Any:
        arrow = need("pyarrow")
        columns = dict(zip(self._others, others, strict=True)) | {self._output: arrow.array(made, arrow.binary())}
        return arrow.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)

    def _copied(self, file: Any, group: int, rows: int) -> Iterator[tuple[list[Any], int]]:
        """(the other columns, how many rows) of a row group, piece by piece."""
        if not self._others:
            yield from (([], min(_BATCH, rows - start)) for start in range(0, rows, _BATCH))
            return
        for batch in _batches(self.path, file, group, self._others, self._together):
            yield [batch.column(name) for name in self._others], len(batch)


def _open(path: Path) -> Any:
    """A Parquet file, of which little more is in memory at a time than what is asked for."""
    arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    try:
        open_regular(path).close()  # the library would wait at a pipe for ever
        return parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except (arrow.ArrowException, OSError) as error:
        raise BatchError(f"{path.name} is no readable Parquet file: {reason(error)}") from error


def _batches(path: Path, file: Any, group: int, columns: list[str], together: int) -> Iterator[Any]:
    arrow = need("pyarrow")
    try:
        yield from file.iter_batches(together, row_groups=[group], columns=columns, use_threads=False)
    except (arrow.ArrowException, OSError) as error:
        raise BatchError(f"{path.name} is damaged: {reason(error)}") from error


def _column(path: Path, schema: Any, work: Work, wanted: str | None) -> str:
    """The column of the pictures."""
    usable = [field.name for field in schema if _holds_pictures(field.type)]
    there = f"it has {', '.join(schema.names)}"
    if wanted is not None:
        if wanted not in usable:
            what = "does not hold bytes" if wanted in schema.names else "is not there"
            raise BatchError(f"{path.name}: the column {wanted} {what}; {there}")
        return wanted
    named = [name for name in usable if name.lower() in _NAMES[work.verb]]
    found = named if named else usable
    if len(found) != 1:
        raise BatchError(f"{path.name}: say with --column which column holds the pictures; {there}")
    return str(found[0])


def _holds_pictures(kind: Any) -> bool:
    """Bytes, or bytes with a path beside them, as the Hub's data sets have it."""
    types = need("pyarrow.types")
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else kind
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _picture(value: Any) -> bytes | ImageError:
    held = value.as_py()
    data = held.get("bytes") if isinstance(held, dict) else held
    return ImageError("null, not a picture") if data is None else bytes(data)


def _replaced(schema: Any, column: str, output: str) -> Any:
    """The schema with another column in its place."""
    arrow = need("pyarrow")
    kept = {k: v for k, v in (schema.metadata or {}).items() if k not in _SPECIFIC}
    changed = schema.set(schema.get_field_index(column), arrow.field(output, arrow.binary()))
    return changed.with_metadata(kept or None)
