"""Tests of checkpoints: they are written whole or not at all, loaded strictly, and describe themselves."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sprdiff.errors import TrainingError
from sprdiff.models.config import NANO
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.train import checkpoints
from sprdiff.train.checkpoints import PARTS, Checkpoint, load, load_networks, part_of, save, trim

pytest_plugins = ("training_fixtures",)


def small_checkpoint(value: float) -> Checkpoint:
    tensors = {"ema.latent_mean": torch.full((8,), value)}
    return Checkpoint("vae", 1, NANO, ("latent_",), tensors, {"base": {"file": "hash"}}, total=9, first=1)


@pytest.mark.parametrize("moment", ["save_file", "replace"])
def test_a_failed_save_leaves_the_old_checkpoint(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "vae.safetensors"
    save(path, small_checkpoint(1.0))

    def full(*args: Any, **_: Any) -> None:
        if moment == "save_file":
            Path(args[1]).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints if moment == "save_file" else os, moment, full)
    with pytest.raises(TrainingError, match=r"cannot be written .*No space"):
        save(path, small_checkpoint(2.0))
    monkeypatch.undo()
    assert load(path).tensors["ema.latent_mean"].tolist() == [1.0] * 8
    assert os.listdir(path.parent) == ["vae.safetensors"]


def test_checkpoints_carry_what_describes_them(tmp_path: Path) -> None:
    save(tmp_path / "a", small_checkpoint(3.0))
    found = load(tmp_path / "a")
    assert replace(found, tensors={}) == replace(small_checkpoint(3.0), tensors={})
    assert (found.step, found.total, found.first) == (1, 9, 1)


def test_trimmed_checkpoints_hold_what_a_later_leg_needs(tmp_path: Path) -> None:
    tensors = {
        "ema.flow.leave.weight": torch.ones(2), "ema.vae_decoder.leave.weight": torch.ones(2),
        "model.model.flow.leave.weight": torch.ones(2), "average.model.flow.leave.weight": torch.ones(2),
        "momentum.model.flow.leave.weight": torch.ones(2), "extra.tell.1.weight": torch.ones(2),
        "extra.slow.leave.weight": torch.ones(2),
    }  # fmt: skip
    save(tmp_path / "a", Checkpoint("flow", 5, NANO, ("flow",), tensors, {}, total=9, first=2))
    trim(tmp_path / "a", tmp_path / "b")
    found = load(tmp_path / "b")
    assert set(found.tensors) == {"ema.flow.leave.weight", "extra.tell.1.weight"}
    assert all(v.dtype == torch.float16 for v in found.tensors.values())
    assert (found.stage, found.step, found.total, found.networks) == ("flow", 5, 9, ("flow",))


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint at all", bytes(100)])
def test_damaged_checkpoints(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    wrong = "is not a checkpoint" if content is not None else "cannot be read: no such file$"
    with pytest.raises(TrainingError, match=rf"x\.safetensors {wrong}"):
        load(path)


def test_a_truncated_checkpoint(tmp_path: Path, start: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(start.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="not a checkpoint"):
        load(path)


def test_loading_is_strict(start: Path) -> None:
    good, model = load(start), SPRDiff(NANO)
    name = "ema.flow.enter.weight"
    without = {k: v for k, v in good.tensors.items() if k != name}
    for tensors, message in (
        (without, "lacks 1 weights, such as flow.enter.weight"),
        ({**good.tensors, "ema.flow.more": torch.zeros(1)}, "1 unknown weights, such as flow.more"),
        ({**good.tensors, name: good.tensors[name][:1]}, "flow.enter.weight has shape"),
    ):
        with pytest.raises(TrainingError, match=message):
            load_networks(model, replace(good, tensors=tensors), start)
    assert load_networks(model, good, start) == PARTS
    assert torch.equal(model.flow.enter.weight.detach(), good.tensors[name])


def test_only_the_named_networks_are_loaded(start: Path) -> None:
    model = SPRDiff(NANO)
    before = model.flow.enter.weight.detach().clone()
    load_networks(model, replace(load(start), networks=("vae_decoder",)), start)
    assert torch.equal(model.flow.enter.weight.detach(), before)


def test_the_parts_cover_the_model() -> None:
    assert {part_of(k) for k in SPRDiff(NANO).state_dict()} == set(PARTS)
    assert part_of("something_else") == ""


def test_kernels_of_bytes_are_near_and_half_as_large(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kernel, bias = torch.randn(64, 32, 3, 3), torch.randn(64)
    tensors = {"ema.synthesis.enter.weight": kernel, "ema.synthesis.enter.bias": bias}
    save(tmp_path / "a", Checkpoint("codec", 5, NANO, ("synthesis",), tensors))
    trim(tmp_path / "a", tmp_path / "half")
    trim(tmp_path / "a", tmp_path / "bytes", bytes_only=True)
    assert (tmp_path / "bytes").stat().st_size < 0.55 * (tmp_path / "half").stat().st_size
    found = load(tmp_path / "bytes").tensors
    assert found.keys() == tensors.keys()
    error = (found["ema.synthesis.enter.weight"] - kernel).flatten(1).abs().amax(1)
    assert (error <= kernel.flatten(1).abs().amax(1) / 127 * 0.6).all()
    assert torch.equal(found["ema.synthesis.enter.bias"], bias.half())
