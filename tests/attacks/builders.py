"""What attack files are built from: containers, archives, graphs and heads with stated values."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WEIGHTS = Path(__file__).parents[2] / "src" / "sprdiff" / "weights" / "tiny"


def iptc(inner: bytes) -> bytes:
    """Put an IPTC container around another file."""

    def field(record: int, number: int, data: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, number, len(data)) + data

    head = field(3, 60, b"\1\0") + field(3, 20, b"\0\1") + field(3, 30, b"\0\1") + field(3, 120, b"\5")
    return head + field(8, 10, inner)


def large_png() -> bytes:
    """Make a PNG of 10000 x 10000 white pixels of one bit: 12 MB of rows in 12 kB, 300 MB as RGB."""
    side = 10_000
    rows = zlib.compress((b"\0" + b"\xff" * (side // 8)) * side, 9)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# --- files


def sprd(width: int, height: int, *, scale: int = 0, stream: bytes = b"") -> bytes:
    """Make a file of the shipped weights with a valid check."""
    from sprdiff.format.container import Header, pack_file

    digest = bytes.fromhex(json.loads((WEIGHTS / "manifest.json").read_text())["hash"])
    return pack_file(Header(width, height, 0, scale, False, 1, digest[:2]), stream, digest)


# --- weights


def archive(name: str, data: bytes, method: int) -> bytes:
    """Make an archive of one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        made.writestr(f"{name}.npy", data)
    return stream.getvalue()


def kernel(shape: tuple[int, ...], scale: np.ndarray) -> bytes:
    """Make an archive of an int8 kernel of ones and its scales."""
    stream = io.BytesIO()
    arrays = {"a": np.ones(shape, np.int8), "scale.a": scale}
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def npy(shape: tuple[int, ...], descr: str) -> bytes:
    """Make the head of an array."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def manifest(**changes: object) -> bytes:
    """Return the shipped manifest with changes."""
    content = json.loads((WEIGHTS / "manifest.json").read_text()) | changes
    return json.dumps(content).replace('"HUGE"', "1e400").encode()


def graph(nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray] | None = None) -> bytes:
    """Make a graph with the names of `coarse`, whose x_tilde comes from these nodes."""
    given, names = ("y_hat", "means", "features", "level"), ("x_tilde", "f16", "f32")
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in given]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names]
    rest = [helper.make_node("Abs", ["y_hat"], [name]) for name in names[1:]]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in (arrays or {}).items()]
    made = helper.make_graph([*nodes, *rest], "g", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


# --- containers


def tar_head(name: str, size: int, kind: bytes) -> bytes:
    """Make the header of a member without its contents."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)
