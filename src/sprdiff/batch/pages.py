"""How much memory a Parquet file would unpack to, by the headers of its pages, before a library reads them.

A column chunk is a row of pages. Each begins with its sizes in Thrift's compact protocol. A page of kilobytes
may unpack to gigabytes, and every row may repeat one entry of a dictionary. What the footer says of all this
need not be true.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..common.extras import need
from ..common.files import open_regular
from ..common.messages import reason
from ..errors import BatchError

MAX_ROWS = 10_000_000
MAX_PAGE = 2**26
"""Bytes that any page may unpack to; beyond that, a page may unpack to `MAX_RATIO` times its packed size."""
MAX_RATIO = 16
MAX_BATCH = 2**26
"""Bytes of one column in the rows that are read together, unless a single row has more."""
MAX_VALUES = 2**24
"""Values in a chunk of a column of lists; one row may hold all of them."""
_HEAD = 2**16
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_ABOUT = {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_2: 4}
_DELTA_BYTE_ARRAY = 7
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


@dataclass(frozen=True)
class ParquetPage:
    """One page: its kind, its place and sizes in bytes, the number of its values, and their encoding."""

    kind: int
    place: int
    packed: int
    unpacked: int
    values: int
    encoding: int


def rows_together(path: Path, metadata: Any, most: int) -> int:
    """Return how many rows of a table may be read at a time, at most `most`.

    Args:
        metadata: of the file, as pyarrow has it.

    Raises:
        BatchError: it is damaged, or would unpack to more than a table of pictures does.
    """
    if metadata.num_rows > MAX_ROWS:
        raise BatchError(f"{path.name} has {metadata.num_rows} rows, above the limit of {MAX_ROWS}")
    together, arrow = most, need("pyarrow", "batch", BatchError)
    try:
        with open_regular(path) as file:
            for group in range(metadata.num_row_groups):
                about = metadata.row_group(group)
                for number in range(about.num_columns if about.num_rows else 0):
                    together = min(
                        together, _rows_of(file, about.column(number), metadata.schema.column(number))
                    )
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        struct.error,
        arrow.ArrowException,
    ) as error:
        raise BatchError(f"{path.name} is damaged: {reason(error)}") from error
    if together < 1:
        raise BatchError(f"{path.name} would unpack to more memory than a table of pictures takes")
    return together


def _rows_of(file: BinaryIO, chunk: Any, column: Any) -> int:
    """Return how many rows of a chunk may be read at a time; 0 if not even one may."""
    widest, values, lists = _WIDTHS.get(chunk.physical_type, 0), 0, column.max_repetition_level > 0
    if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY":
        widest = column.length
    for page in _pages(file, chunk):
        if page.unpacked > max(MAX_PAGE, MAX_RATIO * page.packed):
            return 0
        if page.kind == _DICTIONARY and chunk.physical_type == "BYTE_ARRAY":
            widest = max(widest, _widest(file, page, chunk.compression))
        elif page.encoding == _DELTA_BYTE_ARRAY:  # a value may begin like the one before, whatever its length
            widest = max(widest, page.unpacked)
        values += page.values if page.kind != _DICTIONARY else 0
    if lists:
        return MAX_BATCH if values <= MAX_VALUES and values * widest <= MAX_BATCH else 0
    return max(1, MAX_BATCH // max(widest, 1))


def _pages(file: BinaryIO, chunk: Any) -> Iterator[ParquetPage]:
    place = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < place:
        place = chunk.dictionary_page_offset
    end = place + chunk.total_compressed_size
    if place < 0 or end < place:
        raise ValueError("a column that lies nowhere")
    while place < end:
        file.seek(place)
        found = _Thrift(file.read(min(_HEAD, end - place)))
        header = found.struct()
        kind, packed, unpacked = header[1], header[3], header[2]
        about = header[_ABOUT[kind]] if kind in _ABOUT else {}
        numbers = (kind, packed, unpacked, about.get(1, 0), about.get(_ENCODING.get(kind, 0), 0))
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a page of no possible size")
        yield ParquetPage(kind, place + found.place, *numbers[1:])
        place += found.place + packed


def _widest(file: BinaryIO, page: ParquetPage, codec: str) -> int:
    """Return how many bytes the longest entry of a dictionary of byte strings has."""
    file.seek(page.place)
    data: Any = file.read(page.packed)
    if codec != "UNCOMPRESSED":
        name = {"LZ4": "lz4_raw"}.get(codec, codec.lower())
        data = need("pyarrow", "batch", BatchError).decompress(data, page.unpacked, codec=name, asbytes=True)
    place = widest = 0
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place)
        widest, place = max(widest, size), place + 4 + size
    return widest


class _Thrift:
    """A reader of messages in Thrift's compact protocol.

    Attributes:
        place: where it has got to.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a structure; return its fields by number, without the entries of lists."""
        found: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            found[number] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > 8:
            raise ValueError("a page header that is too deep")
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            size = 8 if kind == 7 else self._varint()
            self.place += size
            return None
        if kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(min(size, len(self._data))):
                self._value(head & 15, depth + 1)
            return None
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError("a page header that is none")

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number that is too long")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
