"""A folder of weights: its manifest and its arrays, read with the care that bytes from outside need.

    manifest.json   what the folder holds, and the hash H that files name their weights by
    entropy.npz     exact part: tables and integer networks
    encoder.npz, decoder.npz   fp16 weights of the graphs, by torch's parameter names
    encoder.onnx, coarse.onnx, denoise.onnx, vae_decode.onnx   structure only

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

from ..bitstream.container import DEFAULT_STRIDE, LATENT_STRIDES
from ..errors import WeightsError
from ..files import open_regular, read_at_most

Arrays = dict[str, NDArray[Any]]

FORMAT = 1
GRAPHS = ("encoder", "coarse", "denoise", "vae_decode")
MAX_MANIFEST = 2**20
MAX_GRAPH = 2**24
MAX_ARRAYS = 2**26
"""Most bytes of one ``.npz``, packed and unpacked; that of `tiny` may have 25 MB."""
MAX_DIRECTORY = 2**20
"""Most bytes of the list of its members, all of which is read before any of them."""
MAX_HALO = 640
MAX_NOISE = 1000.0
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others are unpacked as far as they go before anybody can count."""
_END = 22
"""Bytes at the end of an archive that say where its list is."""


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        preset, preset_id: which preset the networks belong to.
        weights_hash: H, 32 bytes.
        noise_scale: standard deviation of the denoiser's noise, in units of the latent.
        halo: one-sided receptive field in pixels, by ``encoder``, ``decoder`` (ŷ to pixels) and by graph.
        graphs: names of the arrays that each graph takes its weights from.
    """

    preset: str
    preset_id: int
    weights_hash: bytes
    noise_scale: float
    halo: Mapping[str, int]
    graphs: Mapping[str, tuple[str, ...]]

    def halo_of(self, graph: str) -> int:
        """Pixels that a tile of this graph must see beyond what it computes."""
        return self.halo.get(graph, self.halo["encoder" if graph == "encoder" else "decoder"])


def default_folder() -> Path:
    """Where the weights that come with the package lie."""
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
        manifest = Manifest(
            preset=str(content["preset"]),
            preset_id=_integer(content["preset_id"], 255),
            weights_hash=_digest(content["hash"]),
            noise_scale=_number(content["noise_scale"], MAX_NOISE),
            halo={str(name): _integer(size, MAX_HALO) for name, size in content["halo"].items()},
            graphs={graph: tuple(map(str, content["graphs"][graph])) for graph in GRAPHS},
        )
        if not {"encoder", "decoder"} <= set(manifest.halo):
            raise ValueError("halo")
        if LATENT_STRIDES.get(manifest.preset_id, DEFAULT_STRIDE) != DEFAULT_STRIDE:
            raise ValueError(f"preset_id {manifest.preset_id}, whose networks are no graphs")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not a manifest of weights: {error!r}") from error
    return manifest


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes.

    Raises:
        WeightsError: it cannot be read, or is larger.
    """
    try:
        with open_regular(path) as file:
            data = read_at_most(file, limit)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {_reason(error)}") from error
    if data is None:
        raise WeightsError(f"{path} is larger than {limit} bytes")
    return data


def read_arrays(path: Path) -> Arrays:
    """The arrays of an ``.npz``, numbers only, each read once its size is known to be true.

    Raises:
        WeightsError: missing, damaged, unpacks to more than `MAX_ARRAYS` bytes, or holds what is no number.
    """
    try:
        with open_regular(path) as file:
            _check_archive(file, path)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                if sum(member.file_size for member in members) > MAX_ARRAYS:
                    raise WeightsError(f"{path} unpacks to more than {MAX_ARRAYS} bytes")
                return {_array_name(member.filename): _member(archive, member) for member in members}
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {_reason(error)}") from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    except Exception as error:  # zlib.error and what else broken archives make the zip module raise
        if isinstance(error, WeightsError | MemoryError):
            raise
        raise WeightsError(f"{path} is damaged: {error!r}") from error


def _check_archive(file: BinaryIO, path: Path) -> None:
    """Look at the end of an archive before the zip module reads the list that it names.

    Raises:
        ValueError: there is no plain end, or the list is too long.
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
        raise ValueError(f"{member.filename} is packed in a way that no array is written in")
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file)  # type: ignore[arg-type]
        if dtype.kind not in "iuf":
            raise ValueError(f"{member.filename} is not an array of numbers")
        size = math.prod(shape) * dtype.itemsize
        # The size by the header is compared with what is there before memory is asked for.
        data = read_at_most(file, min(size, MAX_ARRAYS))
        if data is None or len(data) != size:
            raise ValueError(f"{member.filename} does not hold {shape} numbers")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{member.filename} holds what is no number")
    return array


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the npy format")


def _array_name(filename: str) -> str:
    return filename.removesuffix(".npy")


def _integer(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{value!r} is not an integer from 0 to {limit}")
    return value


def _number(value: Any, limit: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= limit:
        raise ValueError(f"a number that is not from 0 to {limit:g}")
    return float(value)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _digest(value: Any) -> bytes:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("hash")
    return bytes.fromhex(value)
