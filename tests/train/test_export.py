"""Tests of export: checkpoints become a weights folder that onnxruntime and torch read alike, whole or not at
all."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import sprdiff.train.export.folder
import sprdiff.train.export.run
from conftest import photo
from sprdiff.errors import TrainingError, WeightsError
from sprdiff.format.entropy import EntropyModel
from sprdiff.format.hash import canonical_hash
from sprdiff.models.config import EXACT, NANO, TINY, ModelConfig
from sprdiff.models.latent_codec import LatentCodec
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.stored import entropy_arrays, load_entropy_arrays, load_folder
from sprdiff.runtime.noise import normal_noise
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.sessions import Sessions
from sprdiff.runtime.weights import GRAPHS, read_arrays, read_manifest
from sprdiff.train.checkpoints import PARTS, load, load_networks
from sprdiff.train.data.photos import CropSampler
from sprdiff.train.export.folder import FILES, KEPT, refit_tables, write_folder
from sprdiff.train.export.graphs import (
    GENERATION,
    Branches,
    CoarseGraph,
    ConditionGraph,
    EncoderGraph,
    FlowGraph,
    VAEDecodeGraph,
    _export,
    _inputs,
)
from sprdiff.train.export.run import run_export
from sprdiff.train.initial import read_initial
from training_helpers import memory_store, nano_model, write_checkpoint, write_photos

pytest_plugins = ("weights_fixture",)

SIGNATURES = GRAPHS[GENERATION]
CHANGED = ("latent_mean", "latent_std", "flow.pixel16.bias", "flow.semantic32.bias")
CARD = {"data": "none: random weights", "hours": 0.5}


@pytest.fixture(scope="module")
def model() -> SPRDiff:
    """Return the networks that ``nano_weights`` is written from, except for the arrays in CHANGED."""
    import weights_fixture  # not before pytest has loaded it as a plugin

    caught: list[SPRDiff] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights_fixture, "write_folder", lambda _, model, *rest: caught.append(model))
        weights_fixture.write_nano(Path("unused"))
    caught[0].latent_mean += torch.linspace(-0.5, 0.5, NANO.vae_latent)
    caught[0].latent_std *= 1.5
    for name in CHANGED[2:]:
        caught[0].state_dict()[name].zero_()  # equal weights, which an exporter likes to merge
    return caught[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, model: SPRDiff) -> Path:
    """Return the folder that ``run_export`` makes of a checkpoint, with tables fitted to photographs."""
    base = tmp_path_factory.mktemp("export")
    start = write_checkpoint(base / "start.safetensors", model)
    photos = write_photos(base / "photos", count=2, size=128)
    run_export([start], base / "weights", data=[photos], preset="nano", card=CARD, crops=32, crop=64)
    return base / "weights"


# ---------------------------------------------------------------------------- the folder


def test_the_folder_is_complete(exported: Path) -> None:
    assert set(os.listdir(exported)) == set(FILES) - set(KEPT)
    manifest = json.loads((exported / "manifest.json").read_text())
    assert (manifest["format"], manifest["preset"], manifest["preset_id"]) == (2, "nano", 255)
    assert (manifest["generation"], manifest["sampler"], manifest["latest"]) == (2, "euler", 1.0)
    assert ModelConfig.from_json(json.dumps(manifest["config"])) == NANO
    assert manifest["card"] == CARD and manifest["tag"] == manifest["hash"][:4]
    assert all(0 < h <= 512 and h % 64 == 0 for h in manifest["halo"].values())


def test_every_part_has_a_hash_of_its_own(exported: Path) -> None:
    exact, decoder, encoder = (
        read_arrays(exported / f"{name}.npz") for name in ("entropy", "decoder", "encoder")
    )
    manifest = read_manifest(exported)
    assert manifest.weights_hash == canonical_hash(exact)
    assert manifest.decoder_hash == canonical_hash(decoder)
    assert manifest.encoder_hash == canonical_hash(encoder)
    written = json.loads((exported / "manifest.json").read_text())
    assert set(written["serves"].values()) == {manifest.weights_hash.hex()}
    assert (manifest.realism, manifest.steps, manifest.lambda_range) == ((1.0,) * 256, 1, NANO.lambda_range)


def test_weights_are_stored_once_as_half_floats(exported: Path, model: SPRDiff) -> None:
    encoder, decoder = (read_arrays(exported / f"{name}.npz") for name in ("encoder", "decoder"))
    assert not set(encoder) & set(decoder)
    assert {a.dtype for a in (*encoder.values(), *decoder.values())} == {np.dtype(np.float16)}
    expected = {k for k in model.state_dict() if not k.startswith(EXACT)}
    assert set(encoder) | set(decoder) == expected
    for path in exported.glob("*.onnx"):
        inside = onnx.load(path, load_external_data=False).graph.initializer
        stored = sum(np.prod(t.dims) for t in inside if t.data_location != onnx.TensorProto.EXTERNAL)
        assert stored < 300, f"{path.name} holds weights of its own"


def test_the_same_networks_give_the_same_files_again(exported: Path, nano_weights: Path) -> None:
    """Therefore the hash is the same; only what differs in the model differs in the folder."""
    for graph in SIGNATURES:
        assert (exported / f"{graph}.onnx").read_bytes() == (nano_weights / f"{graph}.onnx").read_bytes()
    different = set()
    for name in ("entropy", "encoder", "decoder"):
        one, two = read_arrays(exported / f"{name}.npz"), read_arrays(nano_weights / f"{name}.npz")
        assert set(one) == set(two)
        different |= {k for k in one if one[k].dtype != two[k].dtype or not np.array_equal(one[k], two[k])}
    assert different == {"tables.counts", *CHANGED}
    assert read_manifest(exported).weights_hash != read_manifest(nano_weights).weights_hash


# ---------------------------------------------------------------------------- onnxruntime against torch


@pytest.fixture(scope="module")
def stored(exported: Path) -> SPRDiff:
    """Return the torch model of the folder, with the fp16 weights that the graphs get."""
    return load_folder(exported).eval()


def example(name: str, h: int, w: int) -> torch.Tensor:
    """Return an input of any graph for a picture of h x w cells of 32x32 pixels."""
    (c8, c16, c32), (s32, s16) = NANO.flow, NANO.synthesis
    planes = {
        "y_hat": (NANO.y_channels, 1), "means": (NANO.y_channels, 1), "features": (NANO.hyper_features, 1),
        "f16": (s16, 2), "f32": (s32, 1), "z_t": (NANO.vae_latent, 4), "z0": (NANO.vae_latent, 4),
        "at8": (c8, 4), "at16": (c16, 2), "at32": (c32, 1),
    }  # fmt: skip
    numbers = {"level": 77.0, "time": 0.7, "stride": 2.0}
    if name in numbers:
        return torch.tensor([numbers[name]])
    if name == "image":
        return torch.rand(1, 3, 64 * h, 64 * w)
    if name == "x_tilde":
        return torch.rand(1, 3, 32 * h, 32 * w)
    channels, scale = planes[name]
    return torch.randn(1, channels, scale * h, scale * w)


def module_of(graph: str, model: SPRDiff) -> torch.nn.Module:
    if graph == "encoder":
        return EncoderGraph(model, Branches.of(model))
    kinds = {
        "coarse": CoarseGraph,
        "condition": ConditionGraph,
        "flow": FlowGraph,
        "vae_decode": VAEDecodeGraph,
    }
    return kinds[graph](model)


@pytest.mark.parametrize("graph", SIGNATURES)
@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
def test_graphs_compute_what_torch_computes(
    graph: str, size: tuple[int, int], exported: Path, stored: SPRDiff
) -> None:
    torch.manual_seed(0)
    names, outputs = SIGNATURES[graph]
    inputs = {name: example(name, *size) for name in names}
    with torch.no_grad():
        expected = module_of(graph, stored)(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    sessions = Sessions(exported, read_manifest(exported), threads=1)
    weights = read_arrays(exported / ("encoder.npz" if graph == "encoder" else "decoder.npz"))
    found = sessions.run(graph, weights, {k: v.numpy() for k, v in inputs.items()})
    for name, want in zip(outputs, expected, strict=True):
        assert found[name].shape == tuple(want.shape)
        assert np.abs(found[name] - want.numpy()).max() < 1e-3 * max(1, float(want.abs().max())), name


def test_the_model_and_its_graphs_agree(exported: Path, stored: SPRDiff) -> None:
    """The path leads from pixels to a picture, with torch's own modules beside the graphs."""
    runtime = OnnxRuntime(exported, threads=1)
    pixels = photo(128, 192)
    x, level = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, torch.tensor([90.0])
    y, z = runtime.analyse(pixels)
    exact = runtime.entropy.encode(y, z, 90)
    with torch.no_grad():
        found = stored.latent_codec.analyse(stored.triple_encoder(x))
        values = (runtime.entropy.dequantise(part, 90) for part in (exact.y_hat, exact.mu))
        y_hat, means = (torch.from_numpy(part)[None] for part in values)
        features = torch.from_numpy(exact.h / 256).float()[None]
        f32, f16 = stored.synthesis(y_hat, means, features, level)
        coarse = stored.reconstruction.coarse(f16).clamp(0, 1)
        given = stored.flow.condition(coarse, *stored.reconstruction.conditions(coarse, f32, f16))
        noise = torch.from_numpy(normal_noise(7, 0, slice(0, 16), slice(0, 24), NANO.vae_latent))[None]
        ones = torch.ones(1)
        z0 = noise - stored.flow(noise, ones, 4 * ones, level, given)
        picture = stored.decode_latent(z0, coarse).clamp(0, 1)
    for own, theirs in zip(found, (y, z), strict=True):
        assert np.abs(own[0].numpy() - theirs).max() < 1e-3
    for realism, wanted in ((0.0, coarse), (1.0, picture)):
        made = runtime.decode(exact, level=90, realism=realism, seed=7)
        assert np.abs(made - wanted[0].permute(1, 2, 0).numpy()).max() < 0.004, f"realism {realism}"


def test_an_encoder_that_nobody_listens_to_is_not_run(model: SPRDiff, tmp_path: Path) -> None:
    """Its weights stay in the folder, because torch loads the model whole."""
    other = copy.deepcopy(model)
    other.triple_encoder.fuse_vae.weight.data.zero_()
    assert Branches.of(model) == (True, True) and Branches.of(other) == (False, True)
    module = EncoderGraph(other, Branches.of(other)).eval()
    names = _export(
        module, {"image": _inputs(NANO)["image"]}, ("y", "z"), tmp_path / "e.onnx", other.state_dict()
    )
    assert not [name for name in names if "vae" in name] and "triple_encoder.fuse_semantic.weight" in names
    assert Branches.of(other).silent == ("triple_encoder.vae.", "triple_encoder.fuse_vae.")


def test_pixels_enter_the_graphs_by_strided_convolutions(exported: Path) -> None:
    strides = {"encoder": 4, "condition": 2, "vae_decode": 2}
    for graph, count in strides.items():
        nodes = onnx.load(exported / f"{graph}.onnx", load_external_data=False).graph.node
        found = [a.ints[0] for n in nodes if n.op_type == "Conv" for a in n.attribute if a.name == "strides"]
        assert sum(s in (4, 8) for s in found) == count, graph
        assert not [n for n in nodes if n.op_type == "SpaceToDepth"], graph


# ---------------------------------------------------------------------------- back to torch


def test_a_folder_gives_back_its_weights(stored: SPRDiff, model: SPRDiff) -> None:
    assert stored.config == NANO
    for name, value in model.state_dict().items():
        if not name.startswith(EXACT):
            assert torch.equal(stored.state_dict()[name], value.half().float()), name


def test_integers_survive_the_way_to_torch_and_back(exported: Path, stored: SPRDiff) -> None:
    before, after = read_arrays(exported / "entropy.npz"), entropy_arrays(stored.latent_codec)
    for name, array in before.items():
        if name.startswith("tables.counts"):
            continue  # refitted: they are of the folder, not of the networks
        assert array.dtype == after[name].dtype
        # Gains and what z has are read off at the knots: between them the last digit may differ.
        tolerance = 1 + 2e-6 * float(array.max()) if name.startswith(("gain.", "z.")) else 0
        assert np.abs(array.astype(np.int64) - after[name].astype(np.int64)).max() <= tolerance, name


def test_integer_arrays_of_any_model_are_exact(model: SPRDiff) -> None:
    codec = LatentCodec(NANO)
    first = entropy_arrays(model.latent_codec)
    load_entropy_arrays(codec, first)
    second = entropy_arrays(codec)
    for name in first:
        if name.startswith(("hyper", "context", "tables", "groups")):
            assert np.array_equal(first[name], second[name]), name
    assert EntropyModel(second).y_channels == NANO.y_channels


@pytest.mark.parametrize("name", ["stride", "groups", "passes", "order"])
def test_other_steps_than_the_models_do_not_load(name: str, model: SPRDiff) -> None:
    arrays = entropy_arrays(model.latent_codec)
    with pytest.raises(ValueError, match=f"the array {name} is"):
        load_entropy_arrays(LatentCodec(NANO), arrays | {name: arrays[name][::-1] * 2})


def copy_of(exported: Path, target: Path) -> Path:
    target.mkdir()
    for path in exported.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def rewrite(path: Path, **changes: np.ndarray | None) -> None:
    arrays: dict[str, Any] = {**read_arrays(path), **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vae_decoder.leave.bias": None}, "unknown ones, such as vae_decoder.leave.bias"),
        ({"vae_decoder.more": np.zeros(5, np.float16)}, "unknown ones, such as vae_decoder.more"),
        ({"vae_decoder.leave.bias": np.zeros(5, np.float16)}, "not a weights folder"),
    ],
)
def test_loading_a_folder_is_strict(
    changes: dict[str, np.ndarray | None], message: str, exported: Path, tmp_path: Path
) -> None:
    folder = copy_of(exported, tmp_path / "weights")
    rewrite(folder / "decoder.npz", **changes)
    with pytest.raises(WeightsError, match=message):
        load_folder(folder)


@pytest.mark.parametrize("name", ["manifest.json", "entropy.npz", "encoder.npz"])
@pytest.mark.parametrize("content", [None, b"{}"])
def test_damaged_folders_do_not_load(
    name: str, content: bytes | None, exported: Path, tmp_path: Path
) -> None:
    folder = copy_of(exported, tmp_path / "weights")
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match="not a weights folder"):
        load_folder(folder)


# ---------------------------------------------------------------------------- tables


def coded_bits(arrays: dict[str, Any], model: SPRDiff, sampler: CropSampler) -> float:
    entropy = EntropyModel(arrays)
    total = 0.0
    with torch.no_grad():
        for start in range(0, 32, 8):
            y, z = model.latent_codec.analyse(model.triple_encoder(sampler.batch(2 * 10**9 + start, 0, 8)))
            for i in range(8):
                total += entropy.encode(y[i].numpy(), z[i].numpy(), (start + i) * 8).bits
    return total


def test_refitted_tables_cost_less_where_they_were_fitted(model: SPRDiff) -> None:
    arrays = entropy_arrays(model.latent_codec)
    sampler = CropSampler(memory_store([photo(200, 200, 1), photo(128, 256, 2)]), 128, seed=0)
    before, size = coded_bits(arrays, model, sampler), arrays["tables.counts"].size
    refit_tables(arrays, model, sampler, crops=32)
    assert coded_bits(arrays, model, sampler) < 0.98 * before
    assert arrays["tables.counts"].size == size, "radii stay"


def test_refitting_takes_any_number_of_crops(model: SPRDiff) -> None:
    arrays = entropy_arrays(model.latent_codec)
    refit_tables(arrays, model, CropSampler(memory_store([photo(64, 64)]), 64, seed=0), crops=3)
    EntropyModel(arrays)


# ---------------------------------------------------------------------------- whole or not at all


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Leave out the slow part, the graphs."""

    def graphs(model: SPRDiff, folder: Path) -> dict[str, dict[str, np.ndarray]]:
        (folder / "encoder.onnx").write_bytes(b"graph")
        weights = {
            k: v.numpy().astype(np.float16) for k, v in model.state_dict().items() if not k.startswith(EXACT)
        }
        return {name: weights if name == "coarse" else {} for name in SIGNATURES}

    monkeypatch.setattr(sprdiff.train.export.folder, "export_graphs", graphs)
    yield monkeypatch


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_an_exporter_that_loses_a_weight_is_found_out(
    tmp_path: Path, model: SPRDiff, quick: pytest.MonkeyPatch
) -> None:
    quick.setattr(sprdiff.train.export.folder, "export_graphs", lambda *_: {name: {} for name in SIGNATURES})
    with pytest.raises(TrainingError, match=r"folded flow\.body16.* into a graph"):
        write_folder(tmp_path / "weights", model, entropy_arrays(model.latent_codec), {})
    assert not os.listdir(tmp_path)


def failing_rename(path: Path, target: Path) -> Path:
    if path.name.endswith(".part"):
        raise OSError(5, "Input/output error")
    os.rename(path, target)
    return target


@pytest.mark.parametrize("moment", ["savez", "halo", "rename"])
def test_a_failed_export_leaves_the_old_folder(
    moment: str, tmp_path: Path, model: SPRDiff, quick: pytest.MonkeyPatch
) -> None:
    folder, arrays = tmp_path / "weights", entropy_arrays(model.latent_codec)
    write_folder(folder, model, arrays, {"round": 1})
    before = contents(folder)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with quick.context() as patch:
        if moment == "savez":
            patch.setattr(np, "savez", full)
        elif moment == "halo":
            patch.setattr(sprdiff.train.export.folder, "receptive_field", full)
        else:
            patch.setattr(Path, "rename", failing_rename)
        with pytest.raises(TrainingError, match="weights cannot be written"):
            write_folder(folder, model, arrays, {"round": 2})
    assert contents(folder) == before and os.listdir(tmp_path) == ["weights"]
    write_folder(folder, model, arrays, {"round": 2})
    assert json.loads((folder / "manifest.json").read_text())["card"] == {"round": 2}
    assert os.listdir(tmp_path) == ["weights"]


def test_the_card_and_the_licence_stay(tmp_path: Path, model: SPRDiff, quick: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in KEPT:
        (folder / name).write_text(f"text of {name}")
    write_folder(folder, model, entropy_arrays(model.latent_codec), {})
    assert all((folder / name).read_text() == f"text of {name}" for name in KEPT)
    assert (folder / "manifest.json").exists()


def test_other_folders_are_not_replaced(tmp_path: Path, model: SPRDiff, quick: pytest.MonkeyPatch) -> None:
    folder = write_photos(tmp_path / "photos", count=1)
    with pytest.raises(TrainingError, match=r"no weights folder: it holds made-0\.png"):
        write_folder(folder, model, entropy_arrays(model.latent_codec), {})
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        write_folder(tmp_path / "file", model, entropy_arrays(model.latent_codec), {})
    assert sorted(os.listdir(tmp_path)) == ["file", "photos"] and len(list(folder.iterdir())) == 1


# ---------------------------------------------------------------------------- arguments


def test_every_network_has_to_be_given(tmp_path: Path, model: SPRDiff) -> None:
    parts = tuple(p for p in PARTS if p != "flow")
    start = write_checkpoint(tmp_path / "a.safetensors", model, parts)
    with pytest.raises(TrainingError, match="needs trained flow: give --init"):
        run_export([start], tmp_path / "weights", preset="nano")
    assert not (tmp_path / "weights").exists()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = nano_model()
    with torch.no_grad():
        model.flow.enter.weight[0] = float("nan")
    start = write_checkpoint(tmp_path / "a.safetensors", model)
    with pytest.raises(TrainingError, match="not numbers"):
        run_export([start], tmp_path / "weights", preset="nano")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "huge"}, "no preset"),
        ({"preset": "tiny"}, "weights|shape"),
        ({"data": [Path("nowhere")]}, "there is no folder or shard nowhere"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str, tmp_path: Path, model: SPRDiff) -> None:
    start = write_checkpoint(tmp_path / "a.safetensors", model)
    with pytest.raises(TrainingError, match=message):
        run_export([start], tmp_path / "weights", **{"preset": "nano", **changes})


def test_the_last_checkpoint_wins(
    tmp_path: Path, model: SPRDiff, quick: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_checkpoint(tmp_path / "a.safetensors", model)
    second = write_checkpoint(tmp_path / "b.safetensors", nano_model(8), ("flow",))
    seen: list[SPRDiff] = []
    monkeypatch.setattr(sprdiff.train.export.run, "write_folder", lambda _, model, *rest: seen.append(model))
    run_export([first, second], tmp_path / "weights", preset="nano")
    for name, source in (("flow.enter.weight", second), ("vae_decoder.enter.weight", first)):
        assert torch.equal(seen[0].state_dict()[name], load(source).tensors[f"ema.{name}"])


def test_presets_have_numbers_of_their_own() -> None:
    assert TINY.preset_id == 1 and NANO.preset_id == 255
    assert replace(NANO, preset_id=1) != NANO


def test_a_weights_folder_is_a_start_for_training(nano_weights: Path) -> None:
    start = read_initial(nano_weights)
    assert isinstance(start.config, ModelConfig)
    model = SPRDiff(start.config)
    assert set(load_networks(model, start, nano_weights)) == set(PARTS)
    stored = load_folder(nano_weights).state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
