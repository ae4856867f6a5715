"""Tests of the exported folder: it is read strictly, and replaced whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sprdiff.train.export.folder
import sprdiff.train.export.run
from conftest import photo
from sprdiff.errors import TrainingError, WeightsError
from sprdiff.format.entropy import EntropyModel
from sprdiff.models.config import NANO, TINY, ModelConfig
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.stored import entropy_arrays, load_folder
from sprdiff.runtime.weights import GRAPHS, read_arrays
from sprdiff.train.checkpoints import PARTS, load, load_networks
from sprdiff.train.data.photos import CropSampler
from sprdiff.train.export.folder import KEPT, refit_tables, write_folder
from sprdiff.train.export.run import run_export
from sprdiff.train.initial import read_initial
from training_helpers import memory_store, nano_model, write_checkpoint, write_photos

pytest_plugins = ("weights_fixture", "export_fixtures")


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
    message = "not a weights folder" if content is not None else f"{name} cannot be read: no such file$"
    with pytest.raises(WeightsError, match=message):
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


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_an_exporter_that_loses_a_weight_is_found_out(
    tmp_path: Path, model: SPRDiff, quick: pytest.MonkeyPatch
) -> None:
    quick.setattr(sprdiff.train.export.folder, "export_graphs", lambda *_: {name: {} for name in GRAPHS})
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
