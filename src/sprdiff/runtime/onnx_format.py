"""A reader of graph files without the onnx library: it knows only the fields of our export and refuses
everything else.

ONNX is protobuf: messages of (field number, value). What is unknown here, such as functions, subgraphs or
files of other formats, cannot be judged and is not loaded. A field that may occur once must not occur twice,
because the runtime could then read another graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError

MAX_INLINE = 4096
"""The largest array inside the file; the export keeps larger ones outside."""
_FLOAT, _INT64 = 1, 7
_EXTERNAL = 1
_ATTRIBUTES = {1: 2, 2: 3, 3: 4, 7: 8}
"""The field of an attribute's value, by the type that it states: a number, an integer, a text, integers."""
_WIDTHS = {1: 8, 5: 4}
Message = dict[int, list[Any]]


@dataclass(frozen=True)
class Node:
    """An operation: its operator, the names of its inputs and outputs, and its attributes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """A graph file.

    Attributes:
        nodes: the operations in the order in which they run.
        inputs, outputs: the names of inputs and outputs.
        constants: small arrays inside the file.
        weights: the shapes of the arrays outside, by name.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, NDArray[Any]]
    weights: Mapping[str, tuple[int, ...]]


def read_graph(data: bytes) -> Graph:
    """Read the graph of a file.

    Raises:
        WeightsError: it is none, or contains what our export never writes.
    """
    if data[4:8] == b"ORTM":
        raise WeightsError("it is of onnxruntime's own format")
    try:
        return _graph(data)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"it is not a graph that this version exports ({reason})") from error


def _graph(data: bytes) -> Graph:
    model = _message(data, {1, 2, 3, 7, 8}, once={1, 7})
    for opset in model.get(8, ()):
        if _text(_message(opset, {1, 2}, once={1, 2}).get(1, [b""])[0]):
            raise ValueError("operators of another domain")
    graph = _message(model[7][0], {1, 2, 5, 11, 12, 16}, once={2})
    constants: dict[str, NDArray[Any]] = {}
    weights: dict[str, tuple[int, ...]] = {}
    for tensor in graph.get(5, ()):
        name, shape, value = _tensor(tensor)
        if name in constants or name in weights:
            raise ValueError(f"the array {name} twice")
        if value is None:
            weights[name] = shape
        else:
            constants[name] = value
    inputs, outputs = (tuple(_name_of_value(value) for value in graph.get(field, ())) for field in (11, 12))
    return Graph(tuple(map(_node, graph.get(1, ()))), inputs, outputs, constants, weights)


def _node(data: bytes) -> Node:
    node = _message(data, {1, 2, 3, 4, 5, 6, 7}, once={3, 4, 7})
    if node.get(7, [b""])[0]:
        raise ValueError("an operator of another domain")
    attributes = dict(map(_attribute, node.get(5, ())))
    inputs, outputs = (tuple(map(_text, node.get(field, ()))) for field in (1, 2))
    return Node(_text(node[4][0]), inputs, outputs, attributes)


def _attribute(data: bytes) -> tuple[str, Any]:
    """Read an attribute's name and value: a number, a text or a list of integers; our export writes no
    others."""
    found = _message(data, {1, 2, 3, 4, 8, 20}, once={1, 2, 3, 4, 20})
    name, field = _text(found[1][0]), _ATTRIBUTES[found[20][0]]
    if set(found) - {1, 20, field}:
        raise ValueError(f"the attribute {name} of two types")
    values = found.get(field, [])
    if field == 8:
        return name, tuple(_integers(values))
    if field == 3:
        return name, _signed(values[0]) if values else 0
    if field == 4:
        return name, _text(values[0]) if values else ""
    return name, float(np.frombuffer(values[0], "<f4")[0]) if values else 0.0


def _tensor(data: bytes) -> tuple[str, tuple[int, ...], NDArray[Any] | None]:
    """Read an array's name, shape and values; it has no values if they are outside the file."""
    tensor = _message(data, {1, 2, 8, 9, 13, 14}, once={2, 8, 9, 14})
    name, shape = _text(tensor[8][0]), tuple(_integers(tensor.get(1, [])))
    kind, external = tensor[2][0], tensor.get(14, [0])[0] == _EXTERNAL
    if external and kind != _FLOAT:
        raise ValueError(f"the array {name} of another type than the folder's weights, which are floats")
    if kind not in (_FLOAT, _INT64) or any(not 0 <= side < 2**31 for side in shape):
        raise ValueError(f"the array {name}")
    if external:
        return name, shape, None
    size = int(np.prod(shape, dtype=object)) if shape else 1
    dtype = np.dtype("<f4" if kind == _FLOAT else "<i8")
    raw = tensor.get(9, [b""])[0]
    if 13 in tensor or size > MAX_INLINE or len(raw) != size * dtype.itemsize:
        raise ValueError(f"the array {name}")
    return name, shape, np.frombuffer(raw, dtype).reshape(shape)


def _name_of_value(data: bytes) -> str:
    return _text(_message(data, {1, 2, 4}, once={1})[1][0])


def _message(data: bytes, known: set[int], once: set[int]) -> Message:
    """Read the fields of a message.

    Raises:
        ValueError: it is damaged, has an unknown field, or a field twice that may occur once.
    """
    found: Message = {}
    for number, value in _fields(memoryview(data)):
        if number not in known:
            raise ValueError(f"a field of number {number}")
        values = found.setdefault(number, [])
        values.append(value)
        if number in once and len(values) > 1:
            raise ValueError(f"the field {number} twice")
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        size, place = _varint(data, place) if wire == 2 else (_WIDTHS[wire], place)
        if size > len(data) - place:
            raise ValueError("it is cut off")
        yield number, bytes(data[place : place + size])
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")


def _integers(values: list[Any]) -> Iterator[int]:
    """Yield integers, which are stored one by one or packed together."""
    for value in values:
        if isinstance(value, int):
            yield _signed(value)
            continue
        packed, place = memoryview(value), 0
        while place < len(packed):
            number, place = _varint(packed, place)
            yield _signed(number)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _text(data: bytes) -> str:
    return data.decode("utf-8")
