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
from conftest import one_cell, photo
from sprdiff.codec import Codec
from sprdiff.errors import WeightsError
from sprdiff.format.entropy import Exact
from sprdiff.models.config import TINY, ModelConfig
from sprdiff.runtime import graph_check
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.onnx_format import read_graph
from sprdiff.runtime.weights import GRAPHS, default_folder

pytest_plugins = ("weights_fixture",)


def attack(name: str) -> bytes:
    return (doors.ATTACKS / name).read_bytes()


def sizes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all inputs for one picture of 128 x 64 pixels and one of 96 x 160."""
    cells = {1: (3, 5), 2: (6, 10), 4: (12, 20), 32: (96, 160)}
    c32, c16 = config.synthesis
    at8, at16, at32 = config.flow
    grids = {
        "y_hat": (config.y_channels, 1),
        "means": (config.y_channels, 1),
        "features": (config.hyper_features, 1),
        "x_tilde": (3, 32),
        "f16": (c16, 2),
        "f32": (c32, 1),
        "z_t": (config.vae_latent, 4),
        "at8": (at8, 4),
        "at16": (at16, 2),
        "at32": (at32, 1),
        "z0": (config.vae_latent, 4),
    }
    sizes = {name: (1, channels, *cells[finer]) for name, (channels, finer) in grids.items()}
    return {"image": (1, 3, 128, 64), "level": (1,), "time": (1,), "stride": (1,), **sizes}


@pytest.fixture(params=["shipped", "nano"])
def folder(request: pytest.FixtureRequest) -> Path:
    """Return the folder of the shipped networks, and of small ones with all encoders."""
    found: Path = default_folder() if request.param == "shipped" else request.getfixturevalue("nano_weights")
    return found


def test_shapes_are_those_that_the_runtime_gives(folder: Path) -> None:
    """Otherwise a graph could be larger than it was taken for."""
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    config = json.loads((folder / "manifest.json").read_text())["config"]
    sizes = sizes_of(ModelConfig.from_json(json.dumps(config)))
    for name in GRAPHS:
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


def test_what_a_folder_holds_is_checked(nano_weights: Path, tmp_path: Path) -> None:
    """Operators, pipes, the preset, and values that are not numbers."""
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
    from sprdiff.models.stored import load_folder
    from sprdiff.runtime.weights import read_arrays

    for source in (nano_weights, default_folder()):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        content = json.loads((folder / "manifest.json").read_text())
        content["config"]["trunk"] = 8192
        (folder / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match="another shape than the configuration says"):
            load_folder(folder, read_arrays)


def test_a_graph_is_checked_again_at_every_new_size(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = OnnxRuntime(default_folder(), threads=1)
    small = one_cell(runtime.entropy)
    y, h = np.tile(small.y_hat, (1, 2, 3)), np.tile(small.h, (1, 2, 3))
    large = Exact(y, y, h)
    runtime.decode(small, level=0, realism=0)
    monkeypatch.setattr(graph_check, "_BASE", 1000)
    monkeypatch.setattr(graph_check, "MOST_STORED", 5)
    runtime.decode(small, level=0, realism=0)
    with pytest.raises(WeightsError, match="more memory or time"):
        runtime.decode(large, level=0, realism=0)


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


def test_channels_of_noise_have_a_limit() -> None:
    runtime = OnnxRuntime(default_folder(), threads=1)
    for wrong in (np.broadcast_to(np.float16(1), 50_000), np.ones((16, 1), np.float16)):
        runtime._decoder["latent_std"] = wrong
        with pytest.raises(WeightsError, match="no latent_std of 1 to 256 channels"):
            runtime.decode(one_cell(runtime.entropy), level=0)
    del runtime._decoder["latent_std"]
    with pytest.raises(WeightsError, match="no latent_std"):
        runtime.decode(one_cell(runtime.entropy), level=0)


def test_a_configuration_that_nobody_trained_makes_no_networks() -> None:
    from sprdiff.sd.config import SD, SDConfig

    tiny = json.loads(TINY.to_json())
    for config, kind in ((tiny, ModelConfig), (json.loads(SD.to_json()), SDConfig)):
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
            ModelConfig.from_json(json.dumps(tiny | change))
