"""Makes the attack files of this folder and the table in README.md: python tests/attacks/make.py.

Each file is small and harmless as long as it is read with care. Its folder says by which door it comes in:
see `tests/attack_doors.py`. Run it anew when other weights ship: the ``.sprd`` files name their hash.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper
from PIL import Image

from builders import archive, graph, iptc, kernel, large_png, manifest, npy, sprd, tar_head

FOLDER = Path(__file__).parent
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {}


def attack(name: str, meant: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Write an attack file, and note what it was meant to do."""

    def add(make: Callable[[], bytes]) -> Callable[[], bytes]:
        ATTACKS[name] = meant, make
        return make

    return add


@attack("picture/eps.eps", "let Pillow run Ghostscript")
def _() -> bytes:
    return EPS


@attack("picture/iptc_eps.iim", "let Pillow run Ghostscript, from inside an IPTC container")
def _() -> bytes:
    return iptc(EPS)


@attack("picture/iptc_png.iim", "decode 100 million pixels, from inside an IPTC container of one pixel")
def _() -> bytes:
    return iptc(large_png())


@attack("picture/ico_png.ico", "decode 100 million pixels, from inside an icon of 16 x 16")
def _() -> bytes:
    png = large_png()
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png


@attack("picture/icns_png.icns", "decode 100 million pixels, from inside an icon of 128 x 128")
def _() -> bytes:
    png = large_png()
    block = b"ic07" + struct.pack(">I", 8 + len(png)) + png
    return b"icns" + struct.pack(">I", 8 + len(block)) + block


@attack("picture/tile.tiff", "decode one tile of 20000 x 20000 for a picture of 16 x 16")
def _() -> bytes:
    data = zlib.compress(bytes(100_000))
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 20000),
        (323, 20000),
        (324, 0),
        (325, len(data)),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 324 else value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@attack("picture/ispe.avif", "decode 25 million pixels for a picture that says it has 10 x 10")
def _() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (5000, 5000), (10, 200, 30)).save(stream, "AVIF", speed=10, quality=10)
    data = bytearray(stream.getvalue())
    place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", 10, 10)
    return bytes(data)


@attack("picture/thin.png", "cost as much as 64 times its pixels: 1 x 100000, in cells of 64")
def _() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (100_000, 1)).save(stream, "PNG")
    return stream.getvalue()


@attack("sprd/thin.sprd", "cost as much as 32 million pixels with 1 x 1000000 of them")
def _() -> bytes:
    return sprd(1, 1_000_000)


@attack("sprd/huge.sprd", "make room for a picture of the largest sides there are")
def _() -> bytes:
    return sprd(2**21 - 1, 2**21 - 1)


@attack("sprd/long.sprd", "be read and decoded although it is longer than any picture of one pixel")
def _() -> bytes:
    return sprd(1, 1, stream=bytes(20_000))


@attack("sprd/noise.sprd", "lead the entropy decoder astray with a true check over noise")
def _() -> bytes:
    return sprd(64, 64, stream=np.random.default_rng(0).bytes(300))


@attack("npz/bz2.npz", "unpack 50 MB (6 GB in the original) at once, in bz2")
def _() -> bytes:
    return archive("a", npy((25_000_000,), "<f2") + bytes(50_000_000), zipfile.ZIP_BZIP2)


@attack("npz/lzma.npz", "unpack 50 MB at once, in LZMA")
def _() -> bytes:
    return archive("a", npy((25_000_000,), "<f2") + bytes(50_000_000), zipfile.ZIP_LZMA)


@attack("npz/deflate.npz", "unpack 140 MB, which is more than an archive may")
def _() -> bytes:
    return archive("a", npy((70_000_000,), "<f2") + bytes(140_000_000), zipfile.ZIP_DEFLATED)


@attack("npz/nan.npz", "compute with what is no number")
def _() -> bytes:
    return archive(
        "a", npy((4,), "<f4") + np.array([1, np.nan, np.inf, 0], "<f4").tobytes(), zipfile.ZIP_STORED
    )


@attack("npz/directory.npz", "read a list of members of 4 GB")
def _() -> bytes:
    data = bytearray(archive("a", npy((1,), "<f4") + bytes(4), zipfile.ZIP_STORED))
    data[-10:-6] = b"\xff\xff\xff\xff"
    return bytes(data)


@attack("npz/bytes.npz", "expand 120 MB of bytes, which an archive may hold, to 480 MB of floats")
def _() -> bytes:
    return kernel((120, 1_000_000), np.ones(120, np.float32))


@attack("npz/broadcast.npz", "multiply one channel of 30 000 bytes with 30 000 scales")
def _() -> bytes:
    return kernel((1, 30_000), np.ones(30_000, np.float32))


@attack("npz/scale.npz", "compute with infinity: a scale of 3e38")
def _() -> bytes:
    return kernel((1, 1024), np.full(1, 3e38, np.float32))


@attack("manifest/infinite.json", "make every picture infinite: a latest time of 1e400")
def _() -> bytes:
    return manifest(latest="HUGE")


@attack("manifest/digits.json", "break the conversion to a float: a latest time of 400 digits")
def _() -> bytes:
    return manifest(latest=10**400)


@attack(
    "manifest/preset.json",
    "run networks of 32 pixels a position as if they had 64: preset_id 2 on tiny weights",
)
def _() -> bytes:
    return manifest(preset_id=2)


@attack("manifest/halo.json", "compute each tile with 4096 pixels around it")
def _() -> bytes:
    return manifest(halo=dict.fromkeys(("encoder", "coarse", "condition", "flow", "vae_decode"), 4096))


@attack("graph/constant_of_shape.onnx", "fill 40 GB with ConstantOfShape")
def _() -> bytes:
    return graph(
        [helper.make_node("ConstantOfShape", ["s"], ["x_tilde"])], {"s": np.array([10**10], np.int64)}
    )


@attack("graph/loop.onnx", "run for ever in a Loop")
def _() -> bytes:
    nodes = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])]
    kinds = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "d": TensorProto.BOOL}
    about = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in kinds.items()}
    about |= {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "vw"}
    body = helper.make_graph(nodes, "b", [about[name] for name in "icv"], [about[name] for name in "dw"])
    return graph([helper.make_node("Loop", ["", "", "y_hat"], ["x_tilde"], body=body)])


@attack("graph/doubling.onnx", "double a thing forty times with Concat, which is allowed")
def _() -> bytes:
    nodes = [helper.make_node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(40)]
    return graph(
        [helper.make_node("Abs", ["y_hat"], ["v0"]), *nodes, helper.make_node("Abs", ["v40"], ["x_tilde"])]
    )


@attack("graph/outer.onnx", "grow by broadcasting: a row and a column, multiplied out six times")
def _() -> bytes:
    line = np.ones(4096, np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["a", "one"], ["column"]),
        helper.make_node("Add", ["a", "column"], ["square"]),
        helper.make_node("Unsqueeze", ["square", "one"], ["deep"]),
        helper.make_node("Add", ["deep", "square"], ["x_tilde"]),
    ]
    return graph(nodes, {"a": line, "one": np.array([1], np.int64)})


@attack("graph/pad.onnx", "make a border of a billion with Pad")
def _() -> bytes:
    nodes = [helper.make_node("Pad", ["y_hat", "p"], ["x_tilde"])]
    return graph(nodes, {"p": np.array([0, 0, 0, 0, 0, 0, 0, 10**9], np.int64)})


@attack("graph/resize.onnx", "enlarge to a billion rows with Resize, which is allowed")
def _() -> bytes:
    nodes = [helper.make_node("Resize", ["y_hat", "", "", "s"], ["x_tilde"])]
    return graph(nodes, {"s": np.array([1, 3, 10**9, 32], np.int64)})


@attack("graph/file.onnx", "have the runtime read a file of the machine as weights")
def _() -> bytes:
    model = onnx.load_from_string(graph([helper.make_node("Add", ["y_hat", "w"], ["x_tilde"])]))
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    model.graph.initializer.append(tensor)
    return model.SerializeToString()


@attack("tar/pax.tar", "read attributes of 1.5 GB before a member (a sparse file behind it makes them real)")
def _() -> bytes:
    return tar_head("pax", 1_500_000_000, tarfile.XHDTYPE)


@attack("tar/long_name.tar", "read a name of 1.5 GB")
def _() -> bytes:
    return tar_head("././@LongLink", 1_500_000_000, tarfile.GNUTYPE_LONGNAME)


@attack("tar/global.tar", "read attributes of 1.5 GB for all members")
def _() -> bytes:
    return tar_head("pax", 1_500_000_000, tarfile.XGLTYPE)


def tar(*members: tuple[str, bytes, int]) -> bytes:
    """Make a shard of members with the given rights."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for name, data, mode in members:
            head = tarfile.TarInfo(name)
            head.size, head.mode = len(data), mode
            made.addfile(head, io.BytesIO(data))
    return stream.getvalue()


@attack("tar/rights.tar", "bring rights 06777 into the output")
def _() -> bytes:
    return tar(("run.sh", b"#!/bin/sh\n", 0o6777))


@attack("tar/controls.tar", "bring a name into the output that clears the terminal which shows it")
def _() -> bytes:
    return tar(("\x1b[2Jgone.txt", b"text", 0o644), ("turned\u202etxt.exe", b"text", 0o644))


def table(*columns: tuple[str, pa.Array], **options: object) -> bytes:
    """Make a Parquet file, in which names may occur twice."""
    stream = io.BytesIO()
    made = pa.Table.from_arrays([values for _, values in columns], names=[name for name, _ in columns])
    pq.write_table(made, stream, **options)
    return stream.getvalue()


@attack("parquet/zstd.parquet", "unpack cells of 200 MB from 9 kB")
def _() -> bytes:
    cells = pa.array([bytes(2**20)] * 200, pa.binary())
    return table(("image", cells), compression="zstd", use_dictionary=False)


@attack("parquet/dictionary.parquet", "repeat one entry of 16 MB in every row of a batch")
def _() -> bytes:
    return table(("image", pa.array([bytes(2**24)] * 17, pa.binary())), compression="zstd")


@attack("parquet/list.parquet", "repeat one entry of 1 MB 2000 times in a single row")
def _() -> bytes:
    entries = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), pa.array(["y" * 2**20]))
    lists = pa.ListArray.from_arrays(pa.array([0, 2000], pa.int32()), entries)
    return table(
        ("image", pa.array([b"x"], pa.binary())), ("tags", lists), compression="zstd", store_schema=False
    )


@attack("parquet/nested.parquet", "end the run: bytes that are a struct themselves")
def _() -> bytes:
    kind = pa.struct([("bytes", pa.struct([("bytes", pa.binary())]))])
    return table(("image", pa.array([{"bytes": {"bytes": b"x"}}], kind)))


@attack("parquet/doubled.parquet", "end the run: a column name that stands twice")
def _() -> bytes:
    return table(("image", pa.array([b"x"], pa.binary())), ("x", pa.array([1])), ("x", pa.array([2])))


if __name__ == "__main__":
    lines = [
        "# Attack files",
        "",
        "`make.py` makes these files.",
        "The table says what each was meant to do:",
        "",
        "| file | meant to |",
        "|---|---|",
    ]
    for name, (meant, make) in ATTACKS.items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make())
        lines.append(f"| {name} | {meant} |")
    (FOLDER / "README.md").write_text("\n".join(lines) + "\n", "utf-8")
