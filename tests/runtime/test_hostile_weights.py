"""Tests of hostile folders of weights: everything is checked before it costs memory or time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attack_doors as doors
from conftest import photo
from sprdiff.codec import Codec
from sprdiff.errors import WeightsError
from sprdiff.loading import load_runtime
from sprdiff.runtime import graph_check
from sprdiff.runtime.first import NOISE_KERNEL, FirstRuntime
from sprdiff.runtime.onnx_format import read_graph
from sprdiff.runtime.weights import GRAPHS, default_folder

pytest_plugins = ("weights_fixture",)


def attack(name: str) -> bytes:
    return (doors.ATTACKS / name).read_bytes()


FIRST_SIZES = {
    "image": (1, 3, 128, 64), "y_hat": (1, 96, 3, 5), "level": (1,), "z_t": (1, 32, 6, 10), "t": (1,),
    "c_pix": (1, 128, 6, 10), "c_sem": (1, 128, 3, 5), "z0": (1, 32, 6, 10), "x_tilde": (1, 3, 96, 160),
    "noise": (1, 4, 24, 40),
}  # fmt: skip


NANO_SIZES = {
    "image": (1, 3, 128, 64),
    "y_hat": (1, 12, 3, 5),
    "means": (1, 12, 3, 5),
    "features": (1, 8, 3, 5),
    "level": (1,),
    "x_tilde": (1, 3, 96, 160),
    "f16": (1, 16, 6, 10),
    "f32": (1, 16, 3, 5),
    "z_t": (1, 4, 12, 20),
    "time": (1,),
    "stride": (1,),
    "at8": (1, 8, 12, 20),
    "at16": (1, 16, 6, 10),
    "at32": (1, 16, 3, 5),
    "z0": (1, 4, 12, 20),
}


@pytest.fixture(params=[1, 2], ids=["first", "second"])
def generation(request: pytest.FixtureRequest) -> tuple[int, Path]:
    """Return the number and the folder of the shipped networks, and of small ones of the second
    generation."""
    number: int = request.param
    return number, default_folder() if number == 1 else request.getfixturevalue("nano_weights")


def test_shapes_are_those_that_the_runtime_gives(generation: tuple[int, Path]) -> None:
    """Otherwise a graph could be larger than it was taken for."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    number, folder = generation
    sizes = FIRST_SIZES if number == 1 else NANO_SIZES
    for name in GRAPHS[number]:
        data = (folder / f"{name}.onnx").read_bytes()
        model, graph = onnx.load_from_string(data), read_graph(data)
        made: dict[str, tuple[int, ...]] = {}
        rules = graph_check._OPERATORS
        values: dict[str, Any] = {n: graph_check.Value(s) for n, s in graph.weights.items()}
        values |= {n: graph_check.Value(v.shape, v) for n, v in graph.constants.items()}
        values |= {n: graph_check.Value(sizes[n]) for n in graph.inputs}
        for node in graph.nodes:
            found = rules[node.operator](node, [values[n] if n else None for n in node.inputs])
            values.update(zip(node.outputs, found, strict=True))
            made |= {n: values[n].shape for n in node.outputs}
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in made)
        options = onnxruntime.SessionOptions()
        arrays = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(s, np.float32)) for s in graph.weights.values()
        ]
        options.add_external_initializers(list(graph.weights), arrays)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = {n: np.zeros(sizes[n], np.float32) for n in graph.inputs}
        got = dict(zip(made, session.run(list(made), given), strict=True))
        assert {n: v.shape for n, v in got.items()} == made, name


def test_every_operator_of_the_list_is_emitted(nano_weights: Path) -> None:
    paths = [*default_folder().glob("*.onnx"), *nano_weights.glob("*.onnx")]
    emitted = {n.operator for path in paths for n in read_graph(path.read_bytes()).nodes}
    assert emitted == set(graph_check._OPERATORS)


def test_what_folders_of_the_second_generation_hold_is_checked(nano_weights: Path, tmp_path: Path) -> None:
    """The second generation gets the same care as the first: operators, pipes, the preset, values that are
    not numbers."""
    onnx = pytest.importorskip("onnx")
    content = json.loads((nano_weights / "manifest.json").read_text())
    loop = onnx.load_from_string((nano_weights / "flow.onnx").read_bytes())
    loop.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["level"], ["large"]))
    cases: list[tuple[str, bytes | None, str]] = [
        ("flow.onnx", loop.SerializeToString(), "operator ConstantOfShape"),
        ("condition.onnx", None, "No regular file|no regular file"),
        ("manifest.json", json.dumps(content | {"preset_id": 2}).encode(), "preset_id 2"),
        ("manifest.json", json.dumps(content | {"latest": 10**400}).encode(), "not a manifest"),
        (
            "manifest.json",
            json.dumps(content | {"halo": content["halo"] | {"flow": 4096}}).encode(),
            "not a manifest",
        ),
        ("decoder.npz", attack("npz/nan.npz"), "not numbers"),
        ("decoder.npz", attack("npz/bz2.npz"), "packed in a way"),
    ]
    for number, (name, data, message) in enumerate(cases):
        folder = tmp_path / str(number)
        shutil.copytree(nano_weights, folder)
        (folder / name).unlink()
        if data is None:
            os.mkfifo(folder / name)
        else:
            (folder / name).write_bytes(data)
        with pytest.raises(WeightsError, match=message):
            Codec(folder, threads=1).decode(Codec(nano_weights, threads=1).encode(photo(64, 64), quality=20))


def test_torch_takes_no_memory_for_sizes_that_the_weights_do_not_have(
    nano_weights: Path, tmp_path: Path
) -> None:
    from sprdiff.models.first.stored import load_first
    from sprdiff.models.stored import load_folder
    from sprdiff.runtime.weights import read_arrays

    for source, load in ((nano_weights, load_folder), (default_folder(), load_first)):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        content = json.loads((folder / "manifest.json").read_text())
        content["config"]["trunk"] = 8192
        (folder / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match="another shape than the configuration says"):
            load(folder, read_arrays)


def test_a_graph_is_checked_again_at_every_new_size(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = load_runtime(threads=1)
    assert isinstance(runtime, FirstRuntime)
    latent = np.zeros((96, 2, 3), np.float32)
    runtime.synthesise(latent[:, :1, :1], level=0, realism=0)
    monkeypatch.setattr(graph_check, "_BASE", 1000)
    monkeypatch.setattr(graph_check, "MOST_STORED", 5)
    runtime.synthesise(latent[:, :1, :1], level=0, realism=0)
    with pytest.raises(WeightsError, match="more memory or time"):
        runtime.synthesise(latent, level=0, realism=0)


def test_channels_have_a_limit(tmp_path: Path) -> None:
    from sprdiff.format.entropy import EntropyModel
    from sprdiff.runtime.weights import read_arrays

    exact = read_arrays(default_folder() / "entropy.npz")
    wide = exact | {
        "hyper.0.weight": np.zeros((5000, 297), np.int16),
        "hyper.0.bias": np.zeros(5000, np.int64),
    }
    with pytest.raises(WeightsError, match=r"hyper\.0 has 5000 outputs, above the limit of 4096"):
        EntropyModel(wide)
    many = exact | {
        "gain.z": np.ones((256, 1025), np.uint32),
        "z.mean": np.zeros((256, 1025), np.int32),
        "z.index": np.zeros((256, 1025), np.uint8),
    }
    with pytest.raises(WeightsError, match="z has 1025 channels, more than 1024"):
        EntropyModel(many)
    with pytest.raises(WeightsError, match="1024 channels together at most"):
        EntropyModel(exact | {"groups": np.array([1000, 25], np.int32)})


def test_noise_channels_have_a_limit() -> None:
    runtime = load_runtime(threads=1)
    assert isinstance(runtime, FirstRuntime)
    runtime._decoder[NOISE_KERNEL] = np.broadcast_to(np.float16(0), (24, 50_000, 1, 1))
    with pytest.raises(WeightsError, match="of 1 to 64 channels"):
        runtime.synthesise(np.zeros((96, 1, 1), np.float32), level=0)


def test_a_configuration_that_nobody_trained_makes_no_networks() -> None:
    from sprdiff.models.config import TINY, ModelConfig
    from sprdiff.models.first.config import FirstConfig
    from sprdiff.sd.config import SD, SDConfig

    first = (json.loads((default_folder() / "manifest.json").read_text())["config"], FirstConfig)
    second = (json.loads(TINY.to_json()), ModelConfig)
    for config, kind in (first, second, (json.loads(SD.to_json()), SDConfig)):
        kind.from_json(json.dumps(config))
        for name, value in (
            ("fused", 10**6),
            ("analysis_blocks", 10**9),
            ("fused", "9"),
            ("y_channels", -96),
        ):
            with pytest.raises(ValueError, match=r"not whole numbers|do not sum"):
                kind.from_json(json.dumps(config | {name: value}))
    for change in ({"passes": [[0, 10**9], [1, 2]]}, {"sigma_max": 1e400}, {"lambda_range": [0, 1]}):
        with pytest.raises(ValueError, match="stored configuration has"):
            ModelConfig.from_json(json.dumps(second[0] | change))
