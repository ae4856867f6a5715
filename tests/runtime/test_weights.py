"""Tests of folders of weights that are not what they claim: they are refused with one line, whatever they
hold."""

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

from conftest import one_cell
from sprdiff.errors import WeightsError
from sprdiff.fileinfo import model_info
from sprdiff.models.config import TINY
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.weights import GRAPHS, default_folder, identity, read_arrays, read_manifest

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


def without(field: str) -> Callable[[Path], object]:
    """Take a field out of the manifest."""

    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        del content[field]
        path.write_text(json.dumps(content))

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


def flip_a_weight(file: str) -> Callable[[Path], object]:
    def flip(folder: Path) -> None:
        arrays = read_arrays(folder / file)
        name = sorted(arrays)[0]
        arrays[name] = arrays[name] + arrays[name].dtype.type(1)
        np.savez(folder / file, **arrays)  # type: ignore[arg-type]

    return flip


def replace_arrays(**changes: Any) -> Callable[[Path], object]:
    """Put other arrays into the exact part, under their own hash."""

    def edit(folder: Path) -> None:
        parts = {name: read_arrays(folder / f"{name}.npz") for name in ("entropy", "decoder", "encoder")}
        parts["entropy"] |= changes
        np.savez(folder / "entropy.npz", **parts["entropy"])  # type: ignore[arg-type]
        edit_manifest(**identity(*parts.values()))(folder)

    return edit


OTHER = "ab" * 32


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), r"manifest\.json cannot be read: no such file"),
        (write("manifest.json", b"\xff{"), "is not a manifest"),
        (write("manifest.json", b"[" * 100_000), "is not a manifest"),
        (write("manifest.json", b"[1]"), "is not a manifest"),
        (write("manifest.json", b" " * 2**21), "is larger than"),
        (edit_manifest(format=1), "has format 1"),
        (edit_manifest(format=3), "has format 3"),
        (edit_manifest(hash=OTHER, tag="abab", serves={"encoder": OTHER, "decoder": OTHER}),
         "its exact part does not have the hash"),
        (edit_manifest(decoder_hash=OTHER), "its decoder does not have the hash"),
        (
            edit_manifest(serves={"encoder": OTHER, "decoder": OTHER}),
            "its encoder serves the weights abab, not",
        ),
        (edit_manifest(serves={"decoder": OTHER}), "is not a manifest"),
        (edit_manifest(serves=None), "is not a manifest"),
        (edit_manifest(tag="abab"), "is not a manifest"),
        (edit_manifest(encoder_hash=OTHER[:-1]), "is not a manifest"),
        *((edit_manifest(realism=value), "is not a manifest")
          for value in (1.01, -0.1, True, None, "1", [0.5] * 255, [0.5] * 255 + ["1"], float("nan"))),
        *((edit_manifest(steps=value), "is not a manifest") for value in (0, 1001, 1.0, True, None)),
        *((edit_manifest(lambda_range=value), "is not a manifest")
          for value in (1, [1], [0, 1], [2, 1], [1, 2, 3], [1, float("inf")], [True, 2], None)),
        (
            replace_arrays(stride=np.array([16], np.int32)),
            "has latents at 1/16 and 1/32, and its graphs are for 1/32",
        ),
        (replace_arrays(stride=np.array([31], np.int32)), "stride must be one of"),
        (edit_manifest(hash="zz"), "is not a manifest"),
        (edit_manifest(preset_id=256), "is not a manifest"),
        *((edit_manifest(sampler=value), "is not a manifest") for value in ("midpoint", None, ["euler"])),
        *(
            (edit_manifest(latest=value), "is not a manifest")
            for value in (0, 1.01, -1, "1", float("nan"), True)
        ),
        *(
            (edit_manifest(generation=value), "has networks of generation")
            for value in (0, 3, "2", True, None)
        ),
        (edit_manifest(generation=1), "weights of the first generation, which this version no longer reads"),
        (without("generation"), "weights of the first generation, which this version no longer reads"),
        (edit_manifest(halo=dict.fromkeys(GRAPHS, 10**9)), "is not a manifest"),
        (edit_manifest(halo={"encoder": 64}), "is not a manifest"),
        (edit_manifest(graphs={}), "is not a manifest"),
        (lambda f: (f / "entropy.npz").unlink(), r"entropy\.npz cannot be read"),
        (write("decoder.npz", b"PK\3\4 no archive"), r"decoder\.npz is damaged"),
        (write("decoder.npz", npz(a=b"no array")), r"decoder\.npz is damaged"),
        (write("decoder.npz", npz(a=npy_header((2**40, 2**20)))), "does not hold"),
        (write("decoder.npz", npz(a=npy_header((3,)) + bytes(4))), "does not hold"),
        (write("decoder.npz", npz(a=npy_header((1,), "|O") + b"\x80\4N.")), "is not an array of numbers"),
        (write("decoder.npz", npz(a=npy_header((2**29,)) + bytes(2**28))), "unpacks to more than"),
        (write("entropy.npz", npz(a=npy_header((1,)) + bytes(2))), "its exact part does not have the hash"),
        (flip_a_weight("entropy.npz"), "its exact part does not have the hash"),
        (flip_a_weight("decoder.npz"), "its decoder does not have the hash"),
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
        runtime.decode(one_cell(runtime.entropy), level=0)
    assert "\n" not in str(caught.value)


def edit_graphs(folder: Path, **changes: list[str]) -> None:
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    edit_manifest(graphs=graphs | changes)(folder)


def test_a_damaged_encoder_is_refused_when_it_is_loaded(nano_weights: Path, tmp_path: Path) -> None:
    runtime = OnnxRuntime(damaged(nano_weights, tmp_path / "w", flip_a_weight("encoder.npz")), threads=1)
    runtime.decode(one_cell(runtime.entropy), level=0)
    for _ in range(2):
        with pytest.raises(WeightsError, match="its encoder does not have the hash"):
            runtime.analyse(np.zeros((8, 8, 3), np.uint8))


def test_what_decoding_takes_where_nothing_is_said(nano_weights: Path, tmp_path: Path) -> None:
    table = [level / 255 for level in range(256)]
    change = edit_manifest(realism=table, steps=4, lambda_range=[1, 2000])
    manifest = read_manifest(damaged(nano_weights, tmp_path / "w", change))
    assert (manifest.realism, manifest.steps, manifest.lambda_range) == (tuple(table), 4, (1.0, 2000.0))
    shipped = read_manifest(default_folder())
    assert shipped.lambda_range == TINY.lambda_range
    assert 1 <= shipped.steps <= 8, "numbers of evaluations for which there are trained step sizes"


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_other_networks_around_the_same_exact_part_are_told_apart(
    part: str, nano_weights: Path, tmp_path: Path
) -> None:
    """Batches and comparisons that go on after a kill must not mix the files or pictures of both."""
    before, after = (
        model_info(folder)
        for folder in (
            nano_weights,
            damaged(nano_weights, tmp_path / "w", edit_manifest(**{f"{part}_hash": OTHER})),
        )
    )
    assert (before.hash, before.tag) == (after.hash, after.tag) and before.networks != after.networks


def test_there_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        OnnxRuntime(tmp_path / "nothing")
