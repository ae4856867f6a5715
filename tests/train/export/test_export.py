"""Tests of export: checkpoints become a weights folder that onnxruntime and torch read alike, whole or not at
all."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from conftest import photo
from export_helpers import CARD, CHANGED
from sprdiff.format.entropy import EntropyModel
from sprdiff.format.hash import canonical_hash
from sprdiff.format.kernels import SCALE, is_large
from sprdiff.models.config import EXACT, NANO, ModelConfig
from sprdiff.models.latent_codec import LatentCodec
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.stored import entropy_arrays, load_entropy_arrays
from sprdiff.runtime.noise import normal_noise
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.sessions import Sessions
from sprdiff.runtime.weights import GRAPHS, read_arrays, read_manifest
from sprdiff.train.export.folder import FILES, KEPT
from sprdiff.train.export.graphs import (
    Branches,
    CoarseGraph,
    ConditionGraph,
    EncoderGraph,
    FlowGraph,
    VAEDecodeGraph,
    _export,
    _inputs,
)

pytest_plugins = ("weights_fixture", "export_fixtures")


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


def kernels_and_rest(model: SPRDiff) -> tuple[set[str], set[str]]:
    """Return the names of the weights that are stored as bytes, and of those that are half floats."""
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith(EXACT)}
    kernels = {n for n, value in weights.items() if is_large(value.shape) and not n.startswith("flow.")}
    return kernels, weights.keys() - kernels


def test_weights_are_stored_once_and_small(exported: Path, model: SPRDiff) -> None:
    encoder, decoder = (read_arrays(exported / f"{name}.npz") for name in ("encoder", "decoder"))
    assert not set(encoder) & set(decoder)
    kernels, rest = kernels_and_rest(model)
    wanted = dict.fromkeys(kernels, "int8") | dict.fromkeys(rest, "float16")
    wanted |= dict.fromkeys((SCALE + name for name in kernels), "float32")
    assert len(kernels) > 20 and {n: str(a.dtype) for n, a in (encoder | decoder).items()} == wanted
    for part in (encoder, decoder):
        assert {SCALE + name for name in kernels & set(part)} <= set(part), (
            "kernels have their scales beside them"
        )
    for path in exported.glob("*.onnx"):
        inside = onnx.load(path, load_external_data=False).graph.initializer
        stored = sum(np.prod(t.dims) for t in inside if t.data_location != onnx.TensorProto.EXTERNAL)
        assert stored < 300, f"{path.name} holds weights of its own"


def test_the_same_networks_give_the_same_files_again(exported: Path, nano_weights: Path) -> None:
    """Therefore the hash is the same; only what differs in the model differs in the folder."""
    for graph in GRAPHS:
        assert (exported / f"{graph}.onnx").read_bytes() == (nano_weights / f"{graph}.onnx").read_bytes()
    different = set()
    for name in ("entropy", "encoder", "decoder"):
        one, two = read_arrays(exported / f"{name}.npz"), read_arrays(nano_weights / f"{name}.npz")
        assert set(one) == set(two)
        different |= {k for k in one if one[k].dtype != two[k].dtype or not np.array_equal(one[k], two[k])}
    assert different == {"tables.counts", *CHANGED}
    assert read_manifest(exported).weights_hash != read_manifest(nano_weights).weights_hash


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


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
def test_graphs_compute_what_torch_computes(
    graph: str, size: tuple[int, int], exported: Path, stored: SPRDiff
) -> None:
    torch.manual_seed(0)
    names, outputs = GRAPHS[graph]
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
        noise = torch.from_numpy(normal_noise(7, slice(0, 16), slice(0, 24), NANO.vae_latent))[None]
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
    kernels, rest = kernels_and_rest(model)
    found, given = stored.state_dict(), model.state_dict()
    for name in rest:
        assert torch.equal(found[name], given[name].half().float()), name
    for name in kernels:
        step = given[name].flatten(1).abs().amax(1) / 127
        error = (found[name] - given[name]).flatten(1).abs().amax(1)
        assert (error <= 0.5001 * step).all() and error.any(), name


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
