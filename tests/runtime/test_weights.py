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

from conftest import one_cell, photo
from sprdiff.errors import WeightsError
from sprdiff.fileinfo import model_info
from sprdiff.format.kernels import SCALE, packed, unpacked
from sprdiff.models.config import TINY
from sprdiff.models.stored import load_folder
from sprdiff.runtime import weights
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.weights import GRAPHS, default_folder, identity, read_arrays, read_manifest
from sprdiff.viewer.bundle import make_bundle

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


def replace_arrays(part: str, changes: dict[str, Any]) -> Callable[[Path], object]:
    """Put other arrays into a part, under their own hash; None takes one out."""

    def edit(folder: Path) -> None:
        parts = {name: read_arrays(folder / f"{name}.npz") for name in ("entropy", "decoder", "encoder")}
        parts[part] = {n: value for n, value in (parts[part] | changes).items() if value is not None}
        np.savez(folder / f"{part}.npz", **parts[part])  # type: ignore[arg-type]
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
            replace_arrays("entropy", {"stride": np.array([16], np.int32)}),
            "has latents at 1/16 and 1/32, and its graphs are for 1/32",
        ),
        (replace_arrays("entropy", {"stride": np.array([31], np.int32)}), "stride must be one of"),
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
        (edit_manifest(graphs={graph: ["a", "b", "a"] for graph in GRAPHS}), "a manifest.*stands twice"),
        (lambda f: (f / "entropy.npz").unlink(), r"entropy\.npz cannot be read"),
        (write("decoder.npz", b"PK\3\4 no archive"), r"decoder\.npz is damaged"),
        (write("decoder.npz", npz(a=b"no array")), r"decoder\.npz is damaged"),
        (write("decoder.npz", npz(a=npy_header((2**40, 2**20)))), "does not hold"),
        (write("decoder.npz", npz(a=npy_header((3,)) + bytes(4))), "does not hold"),
        (write("decoder.npz", npz(a=npy_header((1,), "|O") + b"\x80\4N.")), "is not an array of numbers"),
        (write("decoder.npz", npz(a=npy_header((2**29,)) + bytes(2**28))), "unpacks to more than"),
        (write("decoder.npz", npz(a=npy_header((2**26 + 1,), "|i1") + bytes(2**26 + 1))), "more numbers"),
        (write("decoder.npz", npz(**{"a\nb": npy_header((1,)) + bytes(2)})), "is no name of an array"),
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


@pytest.mark.parametrize("kind", ["INT8", "INT64"])
def test_a_graph_that_wants_a_kernel_as_integers_is_refused(
    kind: str, nano_weights: Path, tmp_path: Path
) -> None:
    """The kernel lies there as int8, and yet no graph gets anything but its floats."""
    onnx = pytest.importorskip("onnx")

    def change(folder: Path) -> None:
        model = onnx.load(folder / "coarse.onnx", load_external_data=False)
        (tensor,) = (t for t in model.graph.initializer if t.name == KERNEL)
        tensor.data_type = onnx.TensorProto.DataType.Value(kind)
        (folder / "coarse.onnx").write_bytes(model.SerializeToString())

    runtime = OnnxRuntime(damaged(nano_weights, tmp_path / "w", change), threads=1)
    with pytest.raises(
        WeightsError, match=f"the array {KERNEL} of another type than the folder's weights, which are floats"
    ):
        runtime.decode(one_cell(runtime.entropy), level=0)


KERNEL = "synthesis.enter.weight"
"""A kernel of the decoder [16, 24, 3, 3], which is stored as int8."""
ONES = np.ones(16, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({SCALE + KERNEL: None}, f"the int8 kernel {KERNEL} has no {SCALE}{KERNEL}"),
        ({SCALE + KERNEL: ONES[:15]}, r"is float32 \[15\], which does not fit"),
        ({SCALE + KERNEL: np.ones((16, 1, 1, 1, 10**4), np.float32)}, "which does not fit"),
        ({SCALE + KERNEL: ONES.astype(np.float16)}, r"is float16 \[16\], which does not fit"),
        ({SCALE + KERNEL: ONES * np.float32(3e38)}, "makes values that are not numbers"),
        ({KERNEL: None}, f"{SCALE}{KERNEL} belongs to no kernel of int8"),
        ({KERNEL: np.ones((16, 24, 3, 3), np.float16)}, f"{SCALE}{KERNEL} belongs to no kernel of int8"),
        ({KERNEL: np.ones((16, 24, 3, 3), np.int32), SCALE + KERNEL: None}, f"{KERNEL} holds int32, and"),
        ({"latent_std": np.ones(8, np.int8)}, "the int8 kernel latent_std has no"),
    ],
)  # fmt: skip
def test_kernels_without_their_scales_are_refused(
    nano_weights: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Their hash is right, so whoever wrote them meant it so; everything that reads a folder refuses them."""
    folder = damaged(nano_weights, tmp_path / "w", replace_arrays("decoder", changes))
    readers: list[Callable[[Path], object]] = [OnnxRuntime, make_bundle, load_folder]
    readers.append(lambda folder: load_folder(folder, read_arrays))
    for read in readers:
        with pytest.raises(WeightsError, match=message) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_a_scale_that_is_no_number_is_refused(nano_weights: Path, tmp_path: Path) -> None:
    change = replace_arrays("decoder", {SCALE + KERNEL: ONES * np.float32("nan")})
    folder = damaged(nano_weights, tmp_path / "w", change)
    for read, message in (
        (OnnxRuntime, "holds values that are not numbers"),
        (make_bundle, "holds values that are not numbers"),
        (load_folder, "makes values that are not numbers"),
    ):
        with pytest.raises(WeightsError, match=message):
            read(folder)


def test_the_encoders_kernels_are_checked_when_they_are_loaded(nano_weights: Path, tmp_path: Path) -> None:
    kernel = "latent_codec.analysis.0.weight"
    change = replace_arrays("encoder", {SCALE + kernel: None})
    runtime = OnnxRuntime(damaged(nano_weights, tmp_path / "w", change), threads=1)
    with pytest.raises(WeightsError, match=f"the int8 kernel {kernel} has no scale"):
        runtime.analyse(np.zeros((8, 8, 3), np.uint8))


def test_bytes_count_as_half_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an archive of the largest size could expand to twice as much as one of half floats."""
    path = tmp_path / "decoder.npz"
    np.savez(path, **packed({"a": np.ones((10, 10_000))}))  # type: ignore[arg-type]
    monkeypatch.setattr(weights, "MAX_ARRAYS", 2 * 100_000 + 4 * 10)
    assert unpacked(read_arrays(path))["a"].nbytes < 2 * weights.MAX_ARRAYS
    monkeypatch.setattr(weights, "MAX_ARRAYS", 2 * 100_000 + 4 * 10 - 1)
    with pytest.raises(WeightsError, match="holds more numbers than"):
        read_arrays(path)


def half_floats(folder: Path) -> None:
    """Store the networks as half floats alone, as the weights that ship are."""
    for part in ("decoder", "encoder"):
        arrays = read_arrays(folder / f"{part}.npz")
        replace_arrays(
            part,
            dict.fromkeys(arrays)
            | {name: value.astype(np.float16) for name, value in unpacked(arrays).items()},
        )(folder)


def test_folders_of_half_floats_do_the_same(nano_weights: Path, tmp_path: Path) -> None:
    folder = damaged(nano_weights, tmp_path / "w", half_floats)
    arrays = read_arrays(folder / "decoder.npz")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    given, found = (load_folder(path).state_dict() for path in (nano_weights, folder))
    assert given.keys() == found.keys()
    assert all(np.array_equal(value.half(), found[name].half()) for name, value in given.items())
    one, other = (OnnxRuntime(path, threads=1) for path in (nano_weights, folder))
    pixels = photo(64, 96)
    for a, b in zip(one.analyse(pixels), other.analyse(pixels), strict=True):
        assert np.abs(a - b).max() < 0.01 * np.abs(a).max()
    exact = one_cell(one.entropy)
    pictures = [runtime.decode(exact, level=0, seed=3) for runtime in (one, other)]
    assert np.abs(pictures[0] - pictures[1]).max() < 0.004 and pictures[0].std() > 0


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
