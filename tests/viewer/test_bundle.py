"""Tests of the receiver's weights as one binary: what is in it, and that it can be checked."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sprdiff.errors import WeightsError
from sprdiff.format.hash import canonical_hash
from sprdiff.runtime.weights import default_folder, read_arrays, read_manifest
from sprdiff.viewer.bundle import MAGIC, Bundle, make_bundle, pack

pytest_plugins = ("weights_fixture",)

MOST = 20_000_000
"""The bytes that a page may have to load."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


def taken_apart(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the manifest and the parts, read as the page reads them."""
    assert data[:8] == MAGIC
    start = 12 + int.from_bytes(data[8:12], "little")
    head, body = json.loads(data[12:start]), zlib.decompress(data[start:])
    parts, at = {}, 0
    for part in head["parts"]:
        kind, shape = np.dtype(part["dtype"]), part["shape"]
        size = kind.itemsize * int(np.prod(shape))
        parts[part["name"]] = np.frombuffer(body[at : at + size], kind).reshape(shape)
        at += size
    assert at == len(body)
    return head["manifest"], parts


def below(parts: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in parts.items() if name.startswith(prefix)}


def test_it_holds_the_arrays_of_the_package(bundle: Bundle) -> None:
    manifest, parts = taken_apart(bundle.data)
    known = read_manifest(default_folder())
    assert canonical_hash(below(parts, "entropy/")) == known.weights_hash == bytes.fromhex(manifest["hash"])
    assert (
        canonical_hash(below(parts, "decoder/"))
        == known.decoder_hash
        == bytes.fromhex(manifest["decoder_hash"])
    )
    graphs = below(parts, "graph/")
    assert set(graphs) == set(manifest["graphs"]) == set(known.graphs) - {"encoder"}
    assert all(graphs[name].tobytes() == (default_folder() / f"{name}.onnx").read_bytes() for name in graphs)


def test_the_page_is_told_what_the_manifest_says(bundle: Bundle) -> None:
    manifest, _ = taken_apart(bundle.data)
    known = read_manifest(default_folder())
    assert (manifest["generation"], manifest["steps"]) == (known.generation, known.steps)
    assert manifest["realism"] == list(known.realism) and manifest["preset_id"] == known.preset_id
    assert manifest["halo"]["coarse"] == known.halo["coarse"]


def test_it_is_small_enough_and_named_by_its_hash(bundle: Bundle) -> None:
    assert len(bundle.data) <= MOST
    assert bundle.digest == hashlib.sha256(bundle.data).hexdigest()
    index = json.loads(bundle.index)
    assert index == {"file": bundle.name, "sha256": bundle.digest, "bytes": len(bundle.data)}
    assert bundle.digest[:16] in bundle.name


def test_big_endian_arrays_are_written_little_endian() -> None:
    _, parts = taken_apart(pack({}, {"entropy/a": np.arange(6, dtype=">i4").reshape(2, 3)}).data)
    assert parts["entropy/a"].dtype == np.dtype("<i4") and parts["entropy/a"].tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(default_folder(), tmp_path / "weights")
    arrays = read_arrays(folder / "decoder.npz")
    arrays["latent_std"] = arrays["latent_std"] + np.float16(1)
    np.savez(folder / "decoder.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="decoder does not have the hash"):
        make_bundle(folder)


def test_a_folder_that_only_sends_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(default_folder(), tmp_path / "weights")
    for path in (*folder.glob("*.onnx"), folder / "decoder.npz"):
        if path.name != "encoder.onnx":
            path.unlink()
    with pytest.raises(WeightsError, match="the encoder alone"):
        make_bundle(folder)


def test_kernels_of_bytes_reach_the_page_as_they_are_stored(nano_weights: Path) -> None:
    manifest, parts = taken_apart(make_bundle(nano_weights).data)
    decoder = below(parts, "decoder/")
    assert canonical_hash(decoder) == bytes.fromhex(manifest["decoder_hash"])
    kinds = {array.dtype.str for array in decoder.values()}
    assert kinds == {"<f2", "|i1", "<f4"}, "the types that web/src/weights/kernels.ts reads"
