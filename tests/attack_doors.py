"""The doors by which bytes of strangers come in: each takes any bytes, and says what became of them or
raises.

Shared by the attack files (`tests/attacks/`, a folder for each door) and the fuzzer (`tests/fuzz.py`). What
may leave a door is a sentence or an error of the package with one line; the callers see to memory and time.
"""

from __future__ import annotations

import functools
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from conftest import one_cell
from sprdiff.batch.parquet import ParquetTable
from sprdiff.batch.recode import Decode, Encode
from sprdiff.batch.shards import TarShard
from sprdiff.codec import Codec
from sprdiff.errors import SprdiffError
from sprdiff.fileinfo import info
from sprdiff.format.entropy import EntropyModel
from sprdiff.format.hash import canonical_hash
from sprdiff.format.kernels import unpacked
from sprdiff.imageio.open import open_rgb
from sprdiff.pillow import SprdiffImageFile
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.weights import Manifest, default_folder, read_arrays, read_manifest, read_network
from sprdiff.sd.config import SD
from sprdiff.sd.folder import Trained

MAX_PIXELS = 10**6
ATTACKS = Path(__file__).parent / "attacks"
WORK = Encode(quality=10, max_pixels=MAX_PIXELS)


@functools.cache
def codec() -> Codec:
    """Return the shipped networks, on one thread."""
    return Codec(threads=1, max_pixels=MAX_PIXELS)


@contextmanager
def stored(data: bytes, name: str) -> Iterator[Path]:
    """Write the bytes to a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def weights_folder(target: Path, **files: bytes) -> Path:
    """Make a folder of the shipped weights with other files in place of some; the rest are links."""
    target.mkdir()
    for path in default_folder().iterdir():
        if path.name not in files:
            (target / path.name).symlink_to(path)
    for name, data in files.items():
        (target / name).write_bytes(data)
    return target


def picture(data: bytes) -> str:
    """Open the bytes as a picture to be encoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f"a picture of {open_rgb(data, max_pixels=MAX_PIXELS).pixels.shape}"


def sprd(data: bytes) -> str:
    """Decode the bytes as a file."""
    info(data, max_pixels=MAX_PIXELS)
    return f"a picture of {codec().decode(data, realism=0).size}"


def stream(data: bytes) -> str:
    """Decode the bytes as what follows a header: level, rows and columns are in the first three bytes."""
    level, rows, columns = (*data[:3], 0, 0, 0)[:3]
    model: EntropyModel = codec().runtime.entropy
    return f"latents of {model.decode(data[3:], (1 + rows % 4, 1 + columns % 4), level).y_hat.shape}"


def npz(data: bytes) -> str:
    """Read the bytes as the decoder of a folder of weights whose manifest has their hash."""
    with stored(data, "decoder.npz") as path:
        digest = canonical_hash(read_arrays(path))
        arrays = read_network(path.parent, "decoder", digest)
        return f"{sum(value.size for value in unpacked(arrays).values())} numbers"


def manifest(data: bytes) -> str:
    """Read the bytes as the manifest of a folder of weights."""
    with stored(data, "manifest.json") as path:
        return f"weights {read_manifest(path.parent).preset}"


def graph(data: bytes) -> str:
    """Run the bytes as a graph in place of `coarse`, with the weights that it names itself."""
    with tempfile.TemporaryDirectory() as name:
        content = json.loads((default_folder() / "manifest.json").read_text())
        if not data.count(b"weights.npz"):
            content["graphs"]["coarse"] = []
        folder = weights_folder(
            Path(name) / "w", **{"coarse.onnx": data, "manifest.json": json.dumps(content).encode()}
        )
        runtime = OnnxRuntime(folder, threads=1)
        return f"a picture of {runtime.decode(one_cell(runtime.entropy), level=0, realism=0).shape}"


def tar(data: bytes) -> str:
    """Copy the bytes as a shard."""
    with stored(data, "a.tar") as path:
        return shard(path)


def shard(path: Path) -> str:
    """Copy a shard on the disk, without its pictures."""
    return f"a shard of {_emptied(TarShard(path, WORK), path.with_name('out.tar'))} pictures"


def parquet(data: bytes) -> str:
    """Copy the bytes as a table."""
    with stored(data, "a.parquet") as path:
        return table(path)


def table(path: Path) -> str:
    """Copy a table on the disk, without its pictures."""
    return f"a table of {_emptied(ParquetTable(path, WORK), path.with_name('out.parquet'))} rows"


def _emptied(container: TarShard | ParquetTable, out: Path) -> int:
    """Read a container's pictures and write it without them; return how many there were."""
    for _ in container.pictures():
        pass
    container.write(iter([None] * container.count), out)
    out.unlink()
    return container.count


def opened(path: Path) -> str:
    """Open the bytes as a file in Pillow."""
    with SprdiffImageFile(path) as image:
        image.load()
        return f"a picture of {image.size}"


def decode_bound(head: bytes) -> int:
    """Ask how much batch would read of an ``.sprd`` file that begins with the bytes."""
    return Decode(max_pixels=MAX_PIXELS).most(head)


def trained(folder: Path) -> Trained:
    """Read the bytes as the configuration of a trained folder of preset `sd`."""
    none = bytes(32)
    about = Manifest(SD.preset, SD.preset_id, none, none, none, (1.0,) * 256, 1, (1.0, 1.0), {}, {})
    return Trained(folder, about, SD, {}, {})


DOORS: dict[str, Callable[[bytes], str]] = {
    door.__name__: door for door in (picture, sprd, stream, npz, manifest, graph, tar, parquet)
}


def corpus(door: str) -> list[Path]:
    """Return the attack files of a door."""
    folder = ATTACKS / door
    return sorted(folder.iterdir()) if folder.is_dir() else []


def seeds(door: str) -> list[bytes]:
    """Return what a fuzzer begins with: the attack files and sound ones."""
    sound: list[bytes] = []
    if door in ("npz", "graph", "manifest"):
        name = {"npz": "entropy.npz", "graph": "coarse.onnx", "manifest": "manifest.json"}[door]
        sound.append((default_folder() / name).read_bytes())
    if door in ("sprd", "stream"):
        data = codec().encode(np.full((40, 50, 3), 90, np.uint8), quality=20)
        sound.append(data if door == "sprd" else bytes((20, 1, 1)) + data[12:])
    return [path.read_bytes() for path in corpus(door)] + sound


def met(door: Callable[[bytes], str], data: bytes) -> str:
    """Return what became of bytes; anything but a sentence or a one-line error of the package is raised."""
    try:
        return door(data)
    except SprdiffError as error:
        text = str(error)
        assert text and "\n" not in text, repr(text)
        return f"{type(error).__name__}: {text}"
