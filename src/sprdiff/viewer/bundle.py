"""The receiver's weights as one binary for the page; it is made from the arrays of a weights folder when it
is asked for.

    8 bytes   b"SPRDWTS1"
    4 bytes   size of the description, little-endian
    ...       the description, JSON: the manifest, and name, type and shape of every part
    ...       zlib: the numbers of all parts, one after the other, little-endian, last index fastest

Parts are ``entropy/NAME`` and ``decoder/NAME``, the arrays as the folder stores them (`format.kernels`), and
``graph/NAME``, the bytes of an ONNX file.
The page reads it in ``web/src/weights/bundle.ts``.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError
from ..runtime.weights import (
    MAX_GRAPH,
    Manifest,
    check_hash,
    default_folder,
    read_arrays,
    read_limited,
    read_manifest,
    read_network,
    sends_only,
)

MAGIC = b"SPRDWTS1"
SENDER = "encoder"
"""The graph that a receiver does not need."""


@dataclass(frozen=True)
class Bundle:
    """The weights of one folder for the page.

    Attributes:
        data: the binary.
        digest: its SHA-256, hexadecimal digits.
    """

    data: bytes
    digest: str

    @property
    def name(self) -> str:
        """The name of its file; other weights have another name, so a browser may keep the file for ever."""
        return f"weights-{self.digest[:16]}.bin"

    @property
    def index(self) -> bytes:
        """The contents of ``weights.json``, by which the page finds and checks the binary."""
        return json.dumps({"file": self.name, "sha256": self.digest, "bytes": len(self.data)}).encode()


def make_bundle(folder: Path | None = None) -> Bundle:
    """Make the receiver's part of a weights folder.

    Args:
        folder: None: the one that comes with the package.

    Raises:
        WeightsError: it is incomplete or damaged, its arrays are not what its manifest names, or it only
            sends.
    """
    folder = default_folder() if folder is None else folder
    manifest = read_manifest(folder)
    if sends_only(folder):
        raise WeightsError(f"{folder} holds the encoder alone: no page can show pictures with it")
    return pack(_described(manifest), dict(_parts(folder, manifest)))


def pack(manifest: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Bundle:
    """Return the binary of a manifest, as the page reads it, and of arrays by the names of their parts."""
    little = {
        name: array.astype(array.dtype.newbyteorder("<"), "C", copy=False) for name, array in parts.items()
    }
    described = [
        {"name": name, "dtype": array.dtype.str, "shape": array.shape} for name, array in little.items()
    ]
    head = json.dumps({"manifest": manifest, "parts": described}, separators=(",", ":")).encode()
    packer = zlib.compressobj()
    body = b"".join(packer.compress(array.tobytes()) for array in little.values()) + packer.flush()
    data = MAGIC + len(head).to_bytes(4, "little") + head + body
    return Bundle(data, hashlib.sha256(data).hexdigest())


def _parts(folder: Path, manifest: Manifest) -> Iterator[tuple[str, NDArray[Any]]]:
    exact = read_arrays(folder / "entropy.npz")
    check_hash(folder, "exact part", exact, manifest.weights_hash)
    decoder = read_network(folder, "decoder", manifest.decoder_hash)
    for kind, arrays in (("entropy", exact), ("decoder", decoder)):
        yield from ((f"{kind}/{name}", arrays[name]) for name in sorted(arrays))
    for graph in manifest.graphs:
        if graph != SENDER:
            yield f"graph/{graph}", np.frombuffer(read_limited(folder / f"{graph}.onnx", MAX_GRAPH), np.uint8)


def _described(manifest: Manifest) -> dict[str, Any]:
    """Return what the page reads of a manifest."""
    return {
        "preset_id": manifest.preset_id,
        "hash": manifest.weights_hash.hex(),
        "decoder_hash": manifest.decoder_hash.hex(),
        "generation": manifest.generation,
        "realism": manifest.realism,
        "steps": manifest.steps,
        "halo": dict(manifest.halo),
        "graphs": {graph: names for graph, names in manifest.graphs.items() if graph != SENDER},
        "sampler": manifest.sampler,
        "latest": manifest.latest,
    }
