"""Parquet files with a column of pictures: the column is replaced, the other columns are copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.extras import need
from ..common.files import open_regular
from ..common.messages import reason
from ..errors import BatchError, ImageError
from .pages import rows_together
from .recode import Work

_ROWS = 16
"""The largest number of rows that are read together."""
_FLUSH = 64 * 2**20
"""Bytes of outputs that are held before they become a row group."""
_BUFFER = 2**20
_NAMES = {
    "encode": ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "bytes"),
    "decode": ("sprd",),
}
_SPECIFIC = (b"huggingface", b"pandas", b"ARROW:schema")
"""Metadata that describes the columns as they were."""


class ParquetTable:
    """A table and the column of its pictures.

    Attributes:
        count: how many rows it has.
    """

    def __init__(
        self, path: Path, work: Work, column: str | None = None, output_column: str | None = None
    ) -> None:
        """Read the schema.

        Args:
            column: of the pictures; None: the one whose name or type says that it holds them.
            output_column: its name in the output; None: ``sprd`` or ``image``.

        Raises:
            BatchError: the file is no Parquet file, has no such column, or would unpack to too much.
        """
        self.path = path
        with _open(path) as file:
            schema = file.schema_arrow
            if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
                raise BatchError(f"{path.name} has the column {twice[0]} twice")
            self._together = rows_together(path, file.metadata, _ROWS)
            self._groups = file.num_row_groups
            self.count = sum(file.metadata.row_group(group).num_rows for group in range(self._groups))
        self._column = _column(path, schema, work, column)
        self._output = output_column or ("sprd" if work.verb == "encode" else "image")
        if self._output in schema.names and self._output != self._column:
            raise BatchError(
                f"{path.name} has a column {self._output} already: name another with --output-column"
            )
        self._others = [name for name in schema.names if name != self._column]
        self._schema = _replaced(schema, self._column, self._output)

    def pictures(self) -> Iterator[tuple[str, str, bytes | ImageError]]:
        """Yield for each row its label, the label of the output, and the picture's file or why there is none.

        Raises:
            BatchError: the table cannot be read.
        """
        number = 0
        with _open(self.path) as file:
            for group in range(self._groups):
                for batch in self._batches(file, group, [self._column]):
                    for value in batch.column(0):
                        yield f":{number}", f":{number}", _picture(value)
                        number += 1

    def write(self, outputs: Iterator[bytes | None], out: Path) -> None:
        """Write the table anew, with an output in the place of each picture; None becomes null.

        Raises:
            BatchError: the table cannot be read.
            OSError: the new one cannot be written.
        """
        arrow, parquet = _arrow(), _arrow(".parquet")
        with _open(self.path) as file, parquet.ParquetWriter(out, self._schema) as writer:
            for group in range(self._groups):
                held, size = [], 0
                for batch in self._batches(file, group, self._others or [self._column]):
                    made = [next(outputs) for _ in range(len(batch))]
                    columns = {name: batch.column(name) for name in self._others}
                    columns[self._output] = arrow.array(made, arrow.binary())
                    arrays = [columns[name] for name in self._schema.names]
                    held.append(arrow.RecordBatch.from_arrays(arrays, schema=self._schema))
                    size += sum(len(data or b"") for data in made)
                    if size > _FLUSH:
                        writer.write_table(arrow.Table.from_batches(held, self._schema))
                        held, size = [], 0
                if held:
                    writer.write_table(arrow.Table.from_batches(held, self._schema))

    def _batches(self, file: Any, group: int, columns: list[str]) -> Iterator[Any]:
        try:
            yield from file.iter_batches(
                self._together, row_groups=[group], columns=columns, use_threads=False
            )
        except (_arrow().ArrowException, OSError) as error:
            raise BatchError(f"{self.path.name} is damaged: {reason(error)}") from error


def _arrow(module: str = "") -> Any:
    return need(f"pyarrow{module}", "batch", BatchError)


def _open(path: Path) -> Any:
    """Open a Parquet file so that little more of it is in memory than what is asked for."""
    try:
        open_regular(path).close()  # the library would wait at a pipe for ever
        return _arrow(".parquet").ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except (_arrow().ArrowException, OSError) as error:
        raise BatchError(f"{path.name} is no readable Parquet file: {reason(error)}") from error


def _column(path: Path, schema: Any, work: Work, wanted: str | None) -> str:
    """Return the name of the column of the pictures."""
    usable = [field.name for field in schema if _holds_pictures(field.type)]
    there = f"it has {', '.join(schema.names)}"
    if wanted is not None:
        if wanted not in usable:
            what = "does not hold bytes" if wanted in schema.names else "is not there"
            raise BatchError(f"{path.name}: the column {wanted} {what}; {there}")
        return wanted
    found = [name for name in usable if name.lower() in _NAMES[work.verb]] or usable
    if len(found) != 1:
        raise BatchError(f"{path.name}: say with --column which column holds the pictures; {there}")
    return str(found[0])


def _holds_pictures(kind: Any) -> bool:
    """Whether a column holds bytes, or bytes beside a path, as data sets of the Hugging Face hub do."""
    types = _arrow(".types")
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else kind
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _picture(value: Any) -> bytes | ImageError:
    held = value.as_py()
    data = held.get("bytes") if isinstance(held, dict) else held
    return ImageError("the row is null, not a picture") if data is None else bytes(data)


def _replaced(schema: Any, column: str, output: str) -> Any:
    """Return the schema with the output's column in the place of the pictures' column."""
    arrow = _arrow()
    kept = {k: v for k, v in (schema.metadata or {}).items() if k not in _SPECIFIC}
    changed = schema.set(schema.get_field_index(column), arrow.field(output, arrow.binary()))
    return changed.with_metadata(kept or None)
