"""A decoder of ``.sprd`` files up to the integers y_hat, written from docs/bitstream.md alone.

It shares no code with the package and imports only the standard library: where both read the same integers
from a file, the document says what the package does. Arrays are nested lists of ints. It is slow, and plain.
"""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from typing import Any, NamedTuple

Weights = dict[str, Any]
Vector = list[int]
Plane = dict[tuple[int, int], Vector]  # (row, column) -> values by channel

FACTORS = ((1, 1), (3, 2), (2, 1), (3, 1), (4, 1), (6, 1), (8, 1))
STRUCT = {"<i2": "h", "<i4": "i", "<i8": "q", "<u4": "I", "|u1": "B", "<f2": "e"}


class InvalidError(Exception):
    """The file breaks the specification."""


class Exact(NamedTuple):
    """What is the same on every machine, as nested lists [channel][row][column]."""

    y: list[list[Vector]]
    mu: list[list[Vector]]
    h: list[list[Vector]]


def weights_hash(arrays: list[tuple[str, str, tuple[int, ...], list[Any]]]) -> bytes:
    """Return H, or the hash of a decoder or encoder, from (name, dtype, dims, flat values) of its arrays."""
    digest = hashlib.sha256()
    for name, dtype, dims, values in sorted(arrays, key=lambda entry: entry[0].encode()):
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
    """Return the fields of the header, `end` (where the check begins), `check` and `stream`."""
    if data[:3] != b"SPR" or len(data) < 8 or data[3] >> 4 != 2 or data[3] & 7 == 7:
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


def grid_of(fields: dict[str, Any], weights: Weights) -> tuple[int, int]:
    """Return the rows and columns of the y grid."""
    n, d = FACTORS[fields["scale"]]
    sides = (fields["height"], fields["width"])
    coded = [max(1, (2 * side * d + n) // (2 * n)) for side in sides]
    (stride,) = weights["stride"]
    return -(-coded[0] // stride), -(-coded[1] // stride)


class End(Exception):  # noqa: N818
    """The beginning of a file says no more."""


class RangeDecoder:
    """The state of the decoder: the width of the interval, and the offset of the stream's number inside it.

    For the beginning of a stream there is more: `tail` is the byte that follows without end, `limit` how many
    symbols may be read, `seen` what was read. With a tail of ones the gap above the last symbol counts as the
    last symbol.
    """

    def __init__(self, stream: bytes, tail: int = 0, limit: float = float("inf")) -> None:
        self.stream, self.tail, self.limit, self.at = stream, tail, limit, 0
        self.seen: list[int] = []
        self.width = 2**64 - 1
        self.offset = self.word() << 32 | self.word()

    def word(self) -> int:
        chunk = self.stream[self.at : self.at + 4]
        self.at += 4
        return int.from_bytes(chunk + bytes([self.tail] * (4 - len(chunk))), "big")

    def symbol(self, counts: Vector) -> int:
        if len(self.seen) >= self.limit:
            raise End
        scale = self.width // 2**24
        if self.tail:
            self.offset = min(self.offset, scale * 2**24 - 1)
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
        self.seen.append(symbol)
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


def level_weights(level: int) -> Vector:
    return [max(0, 32 - abs(level - 32 * j)) * 8 for j in range(9)]


def neighbours(plane: Plane, row: int, column: int, channels: int, distance: int = 1) -> Vector:
    """Return the 3 x 3 neighbourhood, offsets outer, channels inner; 0 outside the grid and where nothing is
    decoded."""
    v: Vector = []
    for i in (-distance, 0, distance):
        for j in (-distance, 0, distance):
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
    """Return the symbols of one block (position, channel): by table descending, in raster order inside a
    table.

    After the end of a beginning all are 0; so are those whose escape it does not hold whole.
    """
    q = [[0] * len(row) for row in index]
    for t, counts in reversed(list(enumerate(tables))):
        radius = len(counts) // 2 - 1
        places = [(p, c) for p, row in enumerate(index) for c, table in enumerate(row) if table == t]
        escaped = []
        try:
            for p, c in places:
                symbol = coder.symbol(counts)
                if symbol == 2 * radius + 1:
                    escaped.append((p, c))
                else:
                    q[p][c] = symbol - radius
            for p, c in escaped:
                q[p][c] = coder.escape(radius)
        except End:
            continue
    return q


def decode_latents(stream: bytes, grid: tuple[int, int], level: int, weights: Weights) -> Exact:
    return decode_with(RangeDecoder(stream), grid, level, weights)


def decode_beginning(stream: bytes, grid: tuple[int, int], level: int, weights: Weights) -> Exact:
    """Return ŷ, μ, h of every file whose stream begins like this, as far as they agree; means stand for the
    rest."""
    low, high = RangeDecoder(stream, 0), RangeDecoder(stream, 255)
    for coder in (low, high):
        with suppress(InvalidError):  # after the first difference either may meet anything
            decode_with(coder, grid, level, weights)
    certain = 0
    while certain < min(len(low.seen), len(high.seen)) and low.seen[certain] == high.seen[certain]:
        certain += 1
    return decode_with(RangeDecoder(stream, 0, certain), grid, level, weights)


def decode_with(coder: RangeDecoder, grid: tuple[int, int], level: int, weights: Weights) -> Exact:
    tables = tables_of(weights)
    h = hyper(coder, tables, grid, level, weights)
    groups, passes = weights["groups"], weights["passes"]
    stops = [sum(groups[: g + 1]) for g in range(len(groups))]
    y: Plane = {(r, c): [0] * stops[-1] for r in range(grid[0]) for c in range(grid[1])}
    mu: Plane = {place: [0] * stops[-1] for place in y}
    depth = 0
    for s, (number, g) in enumerate(weights["order"]):
        side = len(passes)
        places = [(r, c) for r, c in y if passes[r % side][c % side] == number]
        distance = distance_of(passes, number)
        means, index = [], []
        for r, c in places:
            v = neighbours(y, r, c, depth, distance) + h[r, c] + level_weights(level)
            v = hidden(weights, f"context.{s}.1", hidden(weights, f"context.{s}.0", v))
            out = dense(weights, f"context.{s}.2", v)
            means.append([clip((acc + 2**11) >> 12, -(2**18) + 1, 2**18 - 1) for acc in out[: groups[g]]])
            index.append([clip((acc + 2**15) >> 16, 0, len(tables) - 1) for acc in out[groups[g] :]])
        span = slice(stops[g] - groups[g], stops[g])
        for place, q, m in zip(places, read_block(coder, tables, index), means, strict=True):
            mu[place][span] = m
            y[place][span] = [256 * symbol + mean for symbol, mean in zip(q, m, strict=True)]
        depth = max(depth, stops[g])
    return Exact(*(planes(plane, grid) for plane in (y, mu, h)))


def distance_of(passes: list[Vector], number: int) -> int:
    """Return d of a pass: the rows and columns between the neighbours of a position."""
    side = len(passes)
    coded = [(r, c) for r in range(side) for c in range(side) if passes[r][c] <= number]
    candidates = [d for d in (1, 2, 4) if 2 * d <= side and all(r % d == c % d == 0 for r, c in coded)]
    return max(candidates)


def planes(plane: Plane, grid: tuple[int, int]) -> list[list[Vector]]:
    """Return [channel][row][column]; what lies outside the grid is dropped."""
    return [
        [[plane[r, c][k] for c in range(grid[1])] for r in range(grid[0])] for k in range(len(plane[0, 0]))
    ]


def feature_count(weights: Weights) -> int:
    """Return F: how many features of the hyper-latent the first context network takes."""
    return len(weights["context.0.0.weight"][0]) - 9


def hyper(
    coder: RangeDecoder, tables: list[Vector], grid: tuple[int, int], level: int, weights: Weights
) -> Plane:
    """Decode z; return h by position of the y grid."""
    mean, index = weights["z.mean"][level], weights["z.index"][level]
    features = feature_count(weights)
    ratio = round((len(weights["hyper.1.bias"]) / features) ** 0.5)
    places = [(r, c) for r in range(-(-grid[0] // ratio)) for c in range(-(-grid[1] // ratio))]
    symbols = read_block(coder, tables, [index for _ in places])
    z: Plane = {
        place: [256 * s + m for s, m in zip(q, mean, strict=True)]
        for place, q in zip(places, symbols, strict=True)
    }
    h: Plane = {}
    for r, c in places:
        v = neighbours(z, r, c, len(mean)) + level_weights(level)
        out = hidden(weights, "hyper.1", hidden(weights, "hyper.0", v))
        for block in range(ratio * ratio):
            h[ratio * r + block // ratio, ratio * c + block % ratio] = out[
                block * features : (block + 1) * features
            ]
    return h


def decode_file(data: bytes, weights: Weights, digest: bytes) -> tuple[dict[str, Any], Exact]:
    """Return the header fields and ŷ, μ, h of a file; `digest` is H of the weights."""
    fields = read_header(data)
    if (
        fields["tag"] != digest[:2]
        or crc16(digest + data[: fields["end"]] + fields["stream"]) != fields["check"]
    ):
        raise InvalidError("check")
    return fields, decode_latents(fields["stream"], grid_of(fields, weights), fields["level"], weights)
