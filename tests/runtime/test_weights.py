"""Folders of weights that are not what they say: refused with one line, whatever they hold."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sprdiff.errors import WeightsError
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.weights import default_folder, read_arrays

pytest_plugins = ("weights_fixture",)


def test_the_shipped_folder_is_package_data() -> None:
    assert default_folder().parts[-3:] == ("sprdiff", "weights", "tiny")


def damaged(nano_weights: Path, target: Path, damage: Callable[[Path], object]) -> Path:
    folder = shutil.copytree(nano_weights, target)
    damage(folder)
    return folder


def edit_manifest(**changes: Any) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy_header(shape: tuple[int, ...], descr: str = "<f2") -> bytes:
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def flip_a_weight(folder: Path) -> None:
    arrays = read_arrays(folder / "decoder.npz")
    name = sorted(arrays)[0]
    arrays[name] = arrays[name] + np.float16(1)
    np.savez(folder / "decoder.npz", **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), r"manifest\.json cannot be read: No such file"),
        (write("manifest.json", b"\xff{"), "is not a manifest"),
        (write("manifest.json", b"[" * 100_000), "is not a manifest"),
        (write("manifest.json", b"[1]"), "is not a manifest"),
        (write("manifest.json", b" " * 2**21), "is larger than"),
        (edit_manifest(format=2), "has format 2"),
        (edit_manifest(hash="00" * 32), "do not have the hash"),
        (edit_manifest(hash="zz"), "is not a manifest"),
        (edit_manifest(preset_id=256), "is not a manifest"),
        (edit_manifest(noise_scale=float("nan")), "is not a manifest"),
        (edit_manifest(halo={"encoder": 10**9, "decoder": 64}), "is not a manifest"),
        (edit_manifest(halo={"encoder": 64}), "is not a manifest"),
        (edit_manifest(graphs={}), "is not a manifest"),
        (lambda f: (f / "entropy.npz").unlink(), r"entropy\.npz cannot be read"),
        (write("decoder.npz", b"PK\3\4 no archive"), r"decoder\.npz is damaged"),
        (write("decoder.npz", npz(a=b"no array")), r"decoder\.npz is damaged"),
        (write("decoder.npz", npz(a=npy_header((2**40, 2**20)))), "does not hold"),
        (write("decoder.npz", npz(a=npy_header((3,)) + bytes(4))), "does not hold"),
        (write("decoder.npz", npz(a=npy_header((1,), "|O") + b"\x80\4N.")), "is not an array of numbers"),
        (write("decoder.npz", npz(a=npy_header((2**29,)) + bytes(2**28))), "unpacks to more than"),
        (write("entropy.npz", npz(a=npy_header((1,)) + bytes(2))), "do not have the hash"),
        (flip_a_weight, "do not have the hash"),
    ],
)  # fmt: skip
def test_damaged_folders_are_refused(
    nano_weights: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        OnnxRuntime(damaged(nano_weights, tmp_path / "w", damage))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write("coarse.onnx", b"no graph"), "cannot be loaded"),
        (write("coarse.onnx", bytes(2**24 + 1)), "is larger than"),
        (lambda f: shutil.copy(f / "vae_decode.onnx", f / "coarse.onnx"), "cannot be loaded|of this version"),
        (lambda f: edit_graphs(f, coarse=["no such weight"]), "wants the weights no such weight"),
        (lambda f: edit_graphs(f, coarse=[]), "cannot be loaded"),
    ],
)
def test_damaged_graphs_are_refused(
    nano_weights: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    runtime = OnnxRuntime(damaged(nano_weights, tmp_path / "w", damage), threads=1)
    with pytest.raises(WeightsError, match=message) as caught:
        runtime.synthesise(np.zeros((runtime.entropy.y_channels, 1, 1), np.float32), level=0)
    assert "\n" not in str(caught.value)


def edit_graphs(folder: Path, **changes: list[str]) -> None:
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    edit_manifest(graphs=graphs | changes)(folder)


def test_there_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        OnnxRuntime(tmp_path / "nothing")
