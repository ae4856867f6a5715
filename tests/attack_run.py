"""Runs all attack files in this process within a limit of memory, and prints a line of JSON for each.

python tests/attack_run.py MEGABYTES FOLDER     (FOLDER: room for files that are large and sparse)
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import attack_doors as doors
from conftest import one_cell
from sprdiff.batch.storage import read
from sprdiff.errors import SprdiffError
from sprdiff.fileinfo import model_info, read_sprd
from sprdiff.imageio.open import open_rgb
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.weights import read_arrays
from sprdiff.sd.folder import read_weights
from sprdiff.thumbnailer import thumbnail

SPARSE = 2 * 10**9


def cases(room: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the name of each case and the work that it does."""
    for name, door in doors.DOORS.items():
        for path in doors.corpus(name):
            yield f"{name}/{path.name}", partial(_through, door, path)
    yield from sparse(room)
    yield from pipes(room)


def _through(door: Callable[[bytes], object], path: Path) -> object:
    return door(path.read_bytes())


def enlarged(room: Path, name: str, data: bytes, size: int = SPARSE) -> Path:
    """Make a file that begins with these bytes and goes on with zeros that take no room."""
    path = room / name
    path.write_bytes(data)
    os.truncate(path, size)
    return path


def sparse(room: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield files of 2 GB."""
    data = (doors.ATTACKS / "sprd" / "noise.sprd").read_bytes()
    path = enlarged(room, "a.sprd", data)
    yield "sparse/sprd", lambda: read_sprd(path)
    yield "sparse/thumbnail", lambda: thumbnail(path, 64)
    yield "sparse/plug-in", lambda: doors.opened(path)
    yield "sparse/batch", lambda: read(str(path), doors.decode_bound)
    for name in ("pax", "long_name", "global"):
        head = (doors.ATTACKS / "tar" / f"{name}.tar").read_bytes()
        shard = enlarged(room, f"{name}.tar", head)
        yield f"sparse/{name}.tar", lambda shard=shard: doors.shard(shard)  # type: ignore[misc]
    webp = enlarged(room, "a.webp", b"RIFF\xf0\xff\xff\x7fWEBPVP8 ")
    yield "sparse/webp", lambda: open_rgb(webp)
    png = enlarged(
        room,
        "a.png",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\x3a\x7e\x9b\x55\x70\0\0\0eXIf",
    )
    yield "sparse/png", lambda: open_rgb(png)
    archive = enlarged(room, "a.npz", b"PK")
    yield "sparse/npz", lambda: read_arrays(archive)
    yield "endless/zero", lambda: open_rgb("/dev/zero")
    yield "endless/zero.sprd", lambda: read_sprd("/dev/zero")


def pipes(room: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield folders of weights and containers in which a file is a pipe that nobody writes into."""
    for name in (
        "manifest.json",
        "entropy.npz",
        "decoder.npz",
        "coarse.onnx",
        "condition.onnx",
        "flow.onnx",
        "vae_decode.onnx",
        "encoder.npz",
        "LICENSE-weights",
    ):
        folder = doors.weights_folder(room / f"w-{name}")
        (folder / name).unlink()
        os.mkfifo(folder / name)
        yield f"pipe/{name}", lambda folder=folder: used(folder)  # type: ignore[misc]
    for name in ("a.tar", "a.parquet", "list.txt"):
        os.mkfifo(room / f"pipe-{name}")
        path = room / f"pipe-{name}"
        use: Any = {"a.tar": doors.shard, "a.parquet": doors.table, "list.txt": lambda p: read(str(p))}[name]
        yield f"pipe/{name}", lambda use=use, path=path: use(path)  # type: ignore[misc]
    trained = room / "trained"
    trained.mkdir()
    os.mkfifo(trained / "model.safetensors")
    yield "pipe/model.safetensors", lambda: read_weights(doors.trained(trained))


def used(folder: Path) -> str:
    """Use a folder of weights for everything that there is."""
    licence = model_info(folder).licence
    runtime = OnnxRuntime(folder, threads=1)
    runtime.analyse(np.zeros((8, 8, 3), np.uint8))
    runtime.decode(one_cell(runtime.entropy), level=0)
    return f"licence {licence}"


def main() -> None:
    """Run all cases."""
    # What it takes to have the networks is not the attacks' fault.
    doors.codec().decode(doors.codec().encode(np.zeros((32, 32, 3), np.uint8), quality=10))
    used_now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used_now + int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as name:
        for case, do in cases(Path(name)):
            try:
                result = str(do())
            except (
                SprdiffError,
                SyntaxError,
                OSError,
            ) as error:  # what the doors' callers are told to expect
                result = f"{type(error).__name__}: {error}"
            except BaseException as error:
                result = f"UNEXPECTED {type(error).__name__}: {error}"
            print(json.dumps([case, result]), flush=True)


if __name__ == "__main__":
    main()
