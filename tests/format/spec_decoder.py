"""A decoder of ``.sprd`` files up to the integers y_hat, written from docs/bitstream.md alone.

It shares no code with the package and imports only the standard library: where both read the same integers
from a file, the document says what the package does. Arrays are nested lists of ints. It is slow, and plain.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

Weights = dict[str, Any]
Vector = list[int]
Plane = dict[tuple[int, int], Vector]  # (row, column) -> values by channel

FACTORS = ((1, 1), (3, 2), (2, 1), (3, 1), (4, 1), (6, 1), (8, 1))
STRUCT = {"<i2": "h", "<i4": "i", "<i8": "q", "<u4": "I", "|u1": "B", "<f2": "e"}


class InvalidError(Exception):
    """The file breaks the specification."""


def weights_hash(*parts: list[tuple[str, str, tuple[int, ...], list[Any]]]) -> bytes:
    """H, from (name, dtype, dims, flat values) of the entropy arrays, then of the decoder arrays."""
    digest = hashlib.sha256()
    for part in parts:
        for name, dtype, dims, values in sorted(part, key=lambda entry: entry[0].encode()):
            digest.update(name.encode("utf-8") + b"\0" + dtype.encode("ascii") + b"\0" + bytes([len(dims)]))
            for dim in dims:
                digest.update(dim.to_bytes(4, "little"))
            digest.update(struct.pack(f"<{len(values)}{STRUCT[dtype]}", *values))
    return digest.digest()


def crc16(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def read_header(data: bytes) -> dict[str, Any]:
    """The fields of the header, `end` (where the check begins), `check` and `stream`."""
    if data[:3] != b"SPR" or len(data) < 8 or data[3] >> 4 != 1 or data[3] & 7 == 7:
        raise InvalidError("header")
    fields: dict[str, Any] = {
        "version": data[3] >> 4,
        "grey": data[3] >> 3 & 1,
        "scale": data[3] & 7,
        "preset": data[4],
        "tag": data[5:7],
        "level": data[7],
    }
    at = 8
    for side in ("width", "height"):
        value, shift = 0, 0
        while True:
            if at >= len(data) or shift > 14:
                raise InvalidError(side)
            byte = data[at]
            at += 1
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if value == 0 or (byte == 0 and shift > 7):
            raise InvalidError(side)
        fields[side] = value
    if len(data) < at + 2:
        raise InvalidError("check")
    fields.update(end=at, check=data[at] * 256 + data[at + 1], stream=data[at + 2 :])
    return fields


def grid_of(fields: dict[str, Any]) -> tuple[int, int]:
    """Rows and columns of the y grid."""
    n, d = FACTORS[fields["scale"]]
    sides = (fields["height"], fields["width"])
    coded = [max(1, (2 * side * d + n) // (2 * n)) for side in sides]
    stride = 64 if fields["preset"] == 2 else 32
    return -(-coded[0] // stride), -(-coded[1] // stride)


class RangeDecoder:
    """The decoder's state: the width of the interval and the offset of the stream's number inside it."""

    def __init__(self, stream: bytes) -> None:
        self.stream, self.at = stream, 0
        self.width = 2**64 - 1
        self.offset = self.word() << 32 | self.word()

    def word(self) -> int:
        chunk = self.stream[self.at : self.at + 4]
        self.at += 4
        return int.from_bytes(chunk + bytes(4 - len(chunk)), "big")

    def symbol(self, counts: Vector) -> int:
        scale = self.width // 2**24
        quantile = self.offset // scale
        if quantile >= 2**24:
            raise InvalidError("range")
        symbol, below = 0, 0
        while below + counts[symbol] <= quantile:
            below += counts[symbol]
            symbol += 1
        self.offset -= scale * below
        self.width = scale * counts[symbol]
        if self.width < 2**32:
            self.width <<= 32
            self.offset = self.offset << 32 | self.word()
        return symbol

    def bit(self) -> int:
        return self.symbol([2**23, 2**23])

    def escape(self, radius: int) -> int:
        negative = self.bit()
        zeros = 0
        while self.bit() == 0:
            zeros += 1
            if zeros > 14:
                raise InvalidError("escape")
        value = 1
        for _ in range(zeros):
            value = 2 * value + self.bit()
        size = value - 1 + radius + 1
        if size > 32767:
            raise InvalidError("escape")
        return -size if negative else size


def clip(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def dense(weights: Weights, name: str, v: Vector) -> Vector:
    rows = weights[name + ".weight"]
    assert all(len(row) == len(v) for row in rows), name
    return [
        sum(w * x for w, x in zip(row, v, strict=True)) + b
        for row, b in zip(rows, weights[name + ".bias"], strict=True)
    ]


def hidden(weights: Weights, name: str, v: Vector) -> Vector:
    return [clip((acc + 2**11) >> 12, 0, 16383) for acc in dense(weights, name, v)]


def hats(level: int) -> Vector:
    return [max(0, 32 - abs(level - 32 * j)) * 8 for j in range(9)]


def neighbours(plane: Plane, row: int, column: int, channels: int) -> Vector:
    """3 x 3 neighbourhood, offsets outer, channels inner; 0 outside the grid and where nothing is decoded."""
    v: Vector = []
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            near = plane.get((row + i, column + j), [0] * channels)
            v += near[:channels]
    return v


def tables_of(weights: Weights) -> list[Vector]:
    tables, at = [], 0
    for radius in weights["tables.radius"]:
        tables.append(weights["tables.counts"][at : at + 2 * radius + 2])
        at += 2 * radius + 2
    return tables


def read_block(coder: RangeDecoder, tables: list[Vector], index: list[Vector]) -> list[Vector]:
    """The symbols of one block (position, channel): by table ascending, in raster order inside a table."""
    q = [[0] * len(row) for row in index]
    for t, counts in enumerate(tables):
        radius = len(counts) // 2 - 1
        places = [(p, c) for p, row in enumerate(index) for c, table in enumerate(row) if table == t]
        escaped = []
        for p, c in places:
            symbol = coder.symbol(counts)
            q[p][c] = symbol - radius
            if symbol == 2 * radius + 1:
                escaped.append((p, c))
        for p, c in escaped:
            q[p][c] = coder.escape(radius)
    return q


def decode_latents(stream: bytes, grid: tuple[int, int], level: int, weights: Weights) -> list[list[Vector]]:
    """y_hat as nested lists [channel][row][column]."""
    rows, columns = grid
    coder, tables = RangeDecoder(stream), tables_of(weights)
    h = hyper(coder, tables, grid, level, weights)
    groups, features = weights["groups"], feature_count(weights)
    total = sum(groups)
    y: Plane = {(r, c): [0] * total for r in range(rows) for c in range(columns)}
    for parity in (0, 1):
        places = [place for place in y if sum(place) % 2 == parity]
        for g, size in enumerate(groups):
            name, first = f"context.{parity * len(groups) + g}", sum(groups[:g])
            mu, index = [], []
            for r, c in places:
                v = neighbours(y, r, c, total if parity else first) + h[r, c][:features] + hats(level)
                out = dense(weights, name + ".2", hidden(weights, name + ".1", hidden(weights, name + ".0", v)))
                mu.append([clip((acc + 2**11) >> 12, -32767, 32767) for acc in out[:size]])
                index.append([clip((acc + 2**15) >> 16, 0, len(tables) - 1) for acc in out[size:]])
            for place, q, means in zip(places, read_block(coder, tables, index), mu, strict=True):
                y[place][first : first + size] = [256 * s + m for s, m in zip(q, means, strict=True)]
    return [[[y[r, c][k] for c in range(columns)] for r in range(rows)] for k in range(total)]


def feature_count(weights: Weights) -> int:
    """F: what the first context network takes of the hyper-latent."""
    return len(weights["context.0.0.weight"][0]) - 9


def hyper(coder: RangeDecoder, tables: list[Vector], grid: tuple[int, int], level: int, weights: Weights) -> Plane:
    """Decodes z; returns h by position of the y grid."""
    mean, index = weights["z.mean"][level], weights["z.index"][level]
    features = feature_count(weights)
    ratio = round((len(weights["hyper.1.bias"]) / features) ** 0.5)
    places = [(r, c) for r in range(-(-grid[0] // ratio)) for c in range(-(-grid[1] // ratio))]
    symbols = read_block(coder, tables, [index for _ in places])
    z: Plane = {
        place: [256 * s + m for s, m in zip(q, mean, strict=True)] for place, q in zip(places, symbols, strict=True)
    }
    h: Plane = {}
    for r, c in places:
        v = neighbours(z, r, c, len(mean)) + hats(level)
        out = hidden(weights, "hyper.1", hidden(weights, "hyper.0", v))
        for block in range(ratio * ratio):
            h[ratio * r + block // ratio, ratio * c + block % ratio] = out[block * features : (block + 1) * features]
    return h


def decode_file(data: bytes, weights: Weights, digest: bytes) -> tuple[dict[str, Any], list[list[Vector]]]:
    """Header fields and y_hat of a file, `digest` being H of the weights."""
    fields = read_header(data)
    if fields["tag"] != digest[:2] or crc16(digest + data[: fields["end"]] + fields["stream"]) != fields["check"]:
        raise InvalidError("check")
    return fields, decode_latents(fields["stream"], grid_of(fields), fields["level"], weights)
