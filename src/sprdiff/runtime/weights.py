"""A folder of weights: its manifest and its arrays, read with the care that bytes from outside need.

    manifest.json   what the folder holds, the hash H by which files name their weights, other hashes
    entropy.npz     exact part: tables and integer networks
    encoder.npz, decoder.npz   weights of the graphs, by torch's parameter names (`format.kernels`): fp16, or
                               int8 kernels with scales
    encoder.onnx, coarse.onnx ...   structure only

Nothing here needs a network runtime. No size that a file states is trusted before it is checked.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..common.files import open_regular, read_at_most
from ..common.messages import reason
from ..errors import WeightsError
from ..format.constants import LEVELS
from ..format.container import PRESETS_WITHOUT_GRAPHS
from ..format.hash import canonical_hash
from ..format.kernels import check_packed
from ..limits import MAX_STEPS

Arrays = dict[str, NDArray[Any]]

FORMAT = 2
Signature = tuple[tuple[str, ...], tuple[str, ...]]
"""The names of a graph's inputs and outputs."""
GENERATION = 2
"""The generation of the networks' design that this version runs. Manifests without the field are of the
first."""
_CONDITIONS = ("at8", "at16", "at32")
GRAPHS: Mapping[str, Signature] = {
    "encoder": (("image",), ("y", "z")),
    "coarse": (("y_hat", "means", "features", "level"), ("x_tilde", "f16", "f32")),
    "condition": (("x_tilde", "f16", "f32"), _CONDITIONS),
    "flow": (("z_t", "time", "stride", "level", *_CONDITIONS), ("velocity",)),
    "vae_decode": (("z0", "x_tilde"), ("x_hat",)),
}
"""The graphs of a folder, with the names of their inputs and outputs."""
SAMPLERS = ("euler", "heun")
MAX_MANIFEST = 2**20
MAX_GRAPH = 2**24
MAX_ARRAYS = 2**27
"""The largest size of an ``.npz`` in bytes, packed, and unpacked with numbers of one byte counted as two: in
float32 it takes at most twice as many. The decoder of `tiny` has 16 MB."""
MAX_DIRECTORY = 2**20
"""The largest size in bytes of the list of its members, which is read before all of them."""
MAX_HALO = 1024
SERVING = ("encoder", "decoder")
"""The networks around the exact part: each has a hash of its own, and names the H that it belongs to."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compression methods that are read; others would unpack everything before it could be counted."""
_END = 22
"""The bytes at the end of an archive that say where its list is."""


@dataclass(frozen=True)
class Manifest:
    """The contents of ``manifest.json``.

    Attributes:
        preset, preset_id: the preset of the networks.
        weights_hash: H, the hash of the exact part, 32 bytes.
        decoder_hash, encoder_hash: the hashes of the networks around it, 32 bytes each.
        realism: the default realism by level, 256 numbers from 0 to 1.
        steps: the default number of evaluations of the flow.
        lambda_range: the weights of the squared error against bits that levels 0 and 255 were trained for.
        halo: the one-sided receptive field of each graph in pixels.
        graphs: the names of the arrays from which each graph takes its weights.
        generation: the generation of the networks' design.
        sampler: the solver of the flow, one of `SAMPLERS`.
        latest: the latest time for which the flow may be evaluated, above 0 and at most 1.
    """

    preset: str
    preset_id: int
    weights_hash: bytes
    decoder_hash: bytes
    encoder_hash: bytes
    realism: tuple[float, ...]
    steps: int
    lambda_range: tuple[float, float]
    halo: Mapping[str, int]
    graphs: Mapping[str, tuple[str, ...]]
    generation: int = GENERATION
    sampler: str = SAMPLERS[0]
    latest: float = 1.0

    def halo_of(self, graph: str) -> int:
        """Return how many pixels a tile of this graph must see beyond what it computes."""
        return self.halo[graph]

    def dials(self, level: int, realism: float | None, steps: int | None) -> tuple[float, int]:
        """Return realism and steps for a level: those of the user, or else the defaults of these weights."""
        return self.realism[level] if realism is None else realism, self.steps if steps is None else steps


def default_folder() -> Path:
    """Return the folder of the weights that come with the package."""
    return Path(str(importlib.resources.files("sprdiff"))) / "weights" / "tiny"


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        WeightsError: the folder or the manifest is missing, damaged, or of another version.
    """
    path = folder / "manifest.json"
    data = read_limited(path, MAX_MANIFEST)
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise WeightsError(f"{path} has format {content['format']!r}; this version reads format {FORMAT}")
        _check_generation(path, content.get("generation", 1))
        manifest = Manifest(
            preset=str(content["preset"]),
            preset_id=_integer(content["preset_id"], 255),
            **read_identity(path, content),
            halo={graph: _integer(content["halo"][graph], MAX_HALO) for graph in GRAPHS},
            graphs={graph: _names(content["graphs"][graph]) for graph in GRAPHS},
            **_sampling(content),
        )
        if manifest.preset_id in PRESETS_WITHOUT_GRAPHS:
            raise ValueError(f"preset_id {manifest.preset_id}, whose networks are no graphs")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not a manifest of weights: {error!r}") from error
    return manifest


def _check_generation(path: Path, generation: Any) -> None:
    if type(generation) is int and generation == 1:
        raise WeightsError(f"{path} has weights of the first generation, which this version no longer reads")
    if type(generation) is not int or generation != GENERATION:
        raise WeightsError(
            f"{path} has networks of generation {generation!r}, which this version does not know"
        )


def _sampling(content: Mapping[str, Any]) -> dict[str, Any]:
    sampler, latest = content["sampler"], _number(content["latest"], 1.0)
    if sampler not in SAMPLERS or latest == 0:
        raise ValueError("sampler or latest")
    return {"sampler": sampler, "latest": latest}


def identity(exact: Arrays, decoder: Arrays, encoder: Arrays) -> dict[str, Any]:
    """Return the fields of a manifest that identify the weights: H and its tag, and the hashes of the
    networks."""
    weights_hash = canonical_hash(exact).hex()
    return {
        "hash": weights_hash,
        "tag": weights_hash[:4],
        "serves": dict.fromkeys(SERVING, weights_hash),
        "decoder_hash": canonical_hash(decoder).hex(),
        "encoder_hash": canonical_hash(encoder).hex(),
    }


def defaults(
    lambda_range: tuple[float, float], realism: float | list[float] = 1.0, steps: int = 1
) -> dict[str, Any]:
    """Return the fields of a manifest with the defaults for users; `realism` may be a table by level."""
    return {"realism": realism, "steps": steps, "lambda_range": list(lambda_range)}


def read_identity(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Check the fields that `identity` and `defaults` wrote; return fields of a `Manifest` by name.

    Raises:
        WeightsError: encoder or decoder belong to another exact part.
        KeyError, TypeError, ValueError, AttributeError: a field is missing or has a wrong value.
    """
    weights_hash = _digest(content["hash"])
    if content["tag"] != weights_hash.hex()[:4] or set(content["serves"]) != set(SERVING):
        raise ValueError("tag or serves")
    for part in SERVING:
        if _digest(content["serves"][part]) != weights_hash:
            theirs = content["serves"][part][:4]
            raise WeightsError(f"{path}: its {part} serves the weights {theirs}, not {content['tag']}")
    low, high = (_number(value, 1e9) for value in content["lambda_range"])
    steps = _integer(content["steps"], MAX_STEPS)
    if not 0 < low <= high or steps < 1:
        raise ValueError("lambda_range or steps")
    return {
        "weights_hash": weights_hash,
        "decoder_hash": _digest(content["decoder_hash"]),
        "encoder_hash": _digest(content["encoder_hash"]),
        "realism": _by_level(content["realism"]),
        "steps": steps,
        "lambda_range": (low, high),
    }


def check_hash(folder: Path, part: str, arrays: Arrays, wanted: bytes) -> None:
    """Compare arrays with the hash in the manifest of their folder.

    Raises:
        WeightsError: they have another hash.
    """
    if canonical_hash(arrays) != wanted:
        raise WeightsError(f"{folder} is damaged: its {part} does not have the hash of its manifest")


def sends_only(folder: Path) -> bool:
    """Whether a folder holds only the encoder, as `sprdiff export --encoder` makes it: it can send but not
    receive."""
    graphs = [path.name for path in folder.glob("*.onnx")]
    return graphs == ["encoder.onnx"] and not (folder / "decoder.npz").exists()


def read_limited(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes.

    Raises:
        WeightsError: it cannot be read, or is larger.
    """
    try:
        with open_regular(path) as file:
            data = read_at_most(file, limit)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {reason(error)}") from error
    if data is None:
        raise WeightsError(f"{path} is larger than {limit} bytes")
    return data


def read_arrays(path: Path) -> Arrays:
    """Read the arrays of an ``.npz``; each must hold numbers, and is read only once its size has been
    checked.

    Raises:
        WeightsError: it is missing or damaged, unpacks to more than `MAX_ARRAYS` bytes (with at least two for
            each number), or holds something else.
    """
    arrays: Arrays = {}
    try:
        with open_regular(path) as file:
            _check_archive(file, path)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                if sum(member.file_size for member in members) > MAX_ARRAYS:
                    raise WeightsError(f"{path} unpacks to more than {MAX_ARRAYS} bytes")
                for member in members:
                    name = _array_name(member.filename)
                    arrays[name] = _member(archive, member)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {reason(error)}") from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    except Exception as error:  # zlib.error and other errors of the zip module for broken archives
        if isinstance(error, WeightsError | MemoryError):
            raise
        raise WeightsError(f"{path} is damaged: {error!r}") from error
    if sum(array.size * max(2, array.itemsize) for array in arrays.values()) > MAX_ARRAYS:
        raise WeightsError(f"{path} holds more numbers than {MAX_ARRAYS} bytes of half floats")
    return arrays


def read_network(folder: Path, part: str, wanted: bytes) -> Arrays:
    """Read the weights of the encoder or the decoder as they are stored (`format.kernels.floats_of`).

    Args:
        folder: a weights folder.
        part: one of `SERVING`.
        wanted: their hash in the manifest.

    Raises:
        WeightsError: as `read_arrays` and `check_hash`, or they are neither floats nor kernels with scales.
    """
    path = folder / f"{part}.npz"
    arrays = read_arrays(path)
    check_hash(folder, part, arrays, wanted)
    try:
        check_packed(arrays)
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    return arrays


def _check_archive(file: BinaryIO, path: Path) -> None:
    """Check the end of an archive before the zip module reads the list that it points to.

    Raises:
        ValueError: it has no plain end, or the list is too long.
        WeightsError: the file is too large.
    """
    size = file.seek(0, 2)
    if size > MAX_ARRAYS:
        raise WeightsError(f"{path} is larger than {MAX_ARRAYS} bytes")
    file.seek(max(0, size - _END))
    end = file.read()
    if len(end) < _END or not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise ValueError("it does not end as an archive of arrays does")
    if int.from_bytes(end[12:16], "little") > MAX_DIRECTORY:
        raise ValueError("its list of members is too long")
    file.seek(0)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type not in _METHODS:
        raise ValueError(f"{member.filename} is packed in a way that arrays never are")
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file)  # type: ignore[arg-type]
        if dtype.kind not in "iuf":
            raise ValueError(f"{member.filename} is not an array of numbers")
        size = math.prod(shape) * dtype.itemsize
        # The size in the header is compared with the data before memory is allocated.
        data = read_at_most(file, min(size, MAX_ARRAYS))
        if data is None or len(data) != size:
            raise ValueError(f"{member.filename} does not hold {shape} numbers")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{member.filename} holds values that are not numbers")
    return array


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the npy format")


def _array_name(filename: str) -> str:
    if not filename.isprintable():  # messages name arrays, and are one line
        raise ValueError(f"{filename!r} is no name of an array")
    return filename.removesuffix(".npy")


def _integer(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{value!r} is not an integer from 0 to {limit}")
    return value


def _number(value: Any, limit: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= limit:
        raise ValueError(f"{value!r} is not a number from 0 to {limit:g}")
    return float(value)


def _by_level(value: Any) -> tuple[float, ...]:
    """Return 256 numbers from 0 to 1, from a table or from one number for all levels."""
    table = value if isinstance(value, list) else [value] * LEVELS
    if len(table) != LEVELS:
        raise ValueError(f"realism has {len(table)} entries, not {LEVELS}")
    return tuple(_number(entry, 1.0) for entry in table)


def _names(value: Any) -> tuple[str, ...]:
    names = tuple(map(str, value))
    if len(set(names)) != len(names):  # each would be expanded as often
        raise ValueError("a graph's weights, of which one stands twice")
    return names


def _digest(value: Any) -> bytes:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("hash")
    return bytes.fromhex(value)
