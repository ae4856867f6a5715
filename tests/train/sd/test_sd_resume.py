"""Tests of checkpoints, processes, export and wrong arguments of preset `sd`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sd_training_helpers
from sd_helpers import SMALL, small_model, write_base
from sd_training_helpers import run, sd_options
from sprdiff.errors import TrainingError, WeightsError
from sprdiff.sd import pretrained
from sprdiff.sd.model import is_trained
from sprdiff.train import checkpoints
from sprdiff.train.export.run import run_export
from sprdiff.train.loop import Trainer
from sprdiff.train.sd.recipes import SD_PARTS, SD_STAGES
from sprdiff.train.sd.setup import build_model, load_trained

pytest_plugins = ("sd_training_fixtures",)

STAGES = tuple(SD_STAGES)


# ---------------------------------------------------------------------------- checkpoints


def test_checkpoints_hold_what_is_trained_and_resume_exactly(
    tmp_path: Path, parts: Path, shards: Path, sd_start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run("refine", tmp_path / "straight", parts, shards, init=[sd_start], steps=3)
    assert all(is_trained(k) for k in straight.part("ema")) and straight.config == small_model(parts).config
    assert set(straight.sources) == {"base", "semantic"} and len(straight.sources["base"]) == 5
    assert set(straight.networks) < set(SD_PARTS)
    assert any(k.startswith("discriminator.") for k in straight.part("extra"))
    step = Trainer.train_step

    def killed(trainer: Trainer) -> dict[str, Tensor]:
        if trainer.step == 2:
            raise KeyboardInterrupt
        return step(trainer)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", killed)
        run("refine", tmp_path / "killed", parts, shards, init=[sd_start], steps=3, save_every=0.0)
    resumed = run("refine", tmp_path / "killed", parts, shards, resume=True, steps=3)
    assert set(resumed.tensors) == set(straight.tensors)
    assert not [k for k, v in straight.tensors.items() if not torch.equal(resumed.tensors[k], v)]


def test_weights_of_other_pretrained_parts_are_refused(tmp_path: Path, parts: Path, sd_start: Path) -> None:
    other = tmp_path / "other"
    sd_options(other)
    write_base(other / "base", seed=1)
    model = build_model(sd_options(other))
    with pytest.raises(TrainingError, match=r"another .*safetensors of the part base"):
        checkpoints.load_networks(model, checkpoints.load(sd_start), sd_start)
    again = build_model(sd_options(parts))
    assert set(checkpoints.load_networks(again, checkpoints.load(sd_start), sd_start)) == set(SD_PARTS)


def test_a_checkpoint_killed_in_the_middle_is_never_half_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pixel.safetensors"
    code = f"""
import torch
from pathlib import Path
from sprdiff.sd.config import SD
from sprdiff.train.checkpoints import Checkpoint, save
for step in range(10**6):
    value = torch.full((2**22,), float(step))
    save(Path({str(path)!r}), Checkpoint("pixel", step, SD, (), {{"ema.a": value, "ema.b": value.clone()}}))
"""
    paths = os.pathsep.join(p for p in sys.path if p)
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}) as process:
        deadline = time.monotonic() + 240
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        # Killed while a further one is being written.
        while not list(tmp_path.glob("*.part")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    found = checkpoints.load(path)
    a, b = found.tensors["ema.a"], found.tensors["ema.b"]
    assert torch.equal(a, torch.full((2**22,), float(found.step))) and torch.equal(a, b)


def test_optimiser_of_8_bits(
    tmp_path: Path, parts: Path, shards: Path, sd_start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(TrainingError, match="pip install bitsandbytes"):
        run("refine", tmp_path / "none", parts, shards, init=[sd_start], adam8bit=True)

    class AdamW8bit(torch.optim.SGD):
        """An optimiser with states of the kinds of bitsandbytes: bytes, scales of another size, an integer
        count."""

        def __init__(self, parameters: Any, lr: float, weight_decay: float) -> None:
            super().__init__(parameters, lr=lr)

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()
            for p in (p for group in self.param_groups for p in group["params"]):
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                state["state1"] = torch.full(p.shape, state["step"], dtype=torch.uint8)
                state["absmax1"] = torch.full((3,), float(state["step"]))

    module = types.ModuleType("bitsandbytes.optim")
    vars(module)["AdamW8bit"] = AdamW8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    run("refine", tmp_path, parts, shards, init=[sd_start], adam8bit=True)
    found = run("refine", tmp_path, parts, shards, resume=True, steps=3, adam8bit=True)
    assert {int(v) for v in found.part("step").values()} == {3}
    assert {v.dtype for v in found.part("state1").values()} == {torch.uint8}
    assert {int(v[0]) for v in found.part("absmax1").values()} == {3}


# ---------------------------------------------------------------------------- several processes


def test_two_processes_with_copies_and_with_shards_of_the_model(tmp_path: Path, shards: Path) -> None:
    sd_options(tmp_path)
    (tmp_path / "shards").symlink_to(shards)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, sd_training_helpers.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-10000:]
    ddp, fsdp = tmp_path / "ddp", tmp_path / "fsdp"
    for stage in STAGES:
        one, two = (told(ddp, stage, rank) for rank in (0, 1))
        assert one["wrapped"] == "DistributedDataParallel" and one["moved"]
        assert one["weights"] == two["weights"], f"the processes of {stage} have drifted apart"
        assert one["crops"] != two["crops"], "both processes see the same crops"
    halves = [told(fsdp, "refine", rank) for rank in (0, 1)]
    assert all(half["wrapped"].startswith("FSDP") and half["moved"] for half in halves)
    held = [half["held"] for half in halves]
    assert sum(held) == told(ddp, "refine", 0)["held"] and max(held) < 0.75 * sum(held)
    copied, sharded = (checkpoints.load(folder / "refine.safetensors") for folder in (ddp, fsdp))
    assert copied.step == sharded.step == 3 and set(copied.tensors) == set(sharded.tensors)
    for name, value in copied.part("model").items():  # the same steps, summed in another order
        assert torch.allclose(value, sharded.part("model")[name], rtol=1e-2, atol=5e-4), name


def told(folder: Path, stage: str, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{stage}.{rank}.json").read_text())
    return content


def test_one_process_cannot_be_sharded(tmp_path: Path, parts: Path, shards: Path) -> None:
    with pytest.raises(TrainingError, match="torchrun"):
        run("pixel", tmp_path, parts, shards, shard=True)


# ---------------------------------------------------------------------------- options and export


def test_export_and_training_on_from_it(tmp_path: Path, parts: Path, shards: Path, sd_start: Path) -> None:
    out = tmp_path / "trained"
    options = sd_options(parts)
    run_export([sd_start], out, data=[shards], preset="sd", crops=8, crop=64, card={"bpp": 0.02}, sd=options)
    first = (out / "model.safetensors").read_bytes()
    runtime = pretrained.load(out, device="cpu")
    stored = np.frombuffer(first, np.uint8).size
    assert runtime.manifest.preset == "sd" and stored < 1.5e6
    run_export([out], tmp_path / "again", preset="sd", sd=options)
    model = small_model(parts)
    c = sprdiff_checkpoint(out)
    checkpoints.load_networks(model, c, out)
    again = sprdiff_checkpoint(tmp_path / "again")
    assert all(torch.equal(c.tensors[k], v) for k, v in again.tensors.items())
    found = run("refine", tmp_path / "on", parts, shards, init=[out], steps=1, lr=1e-12)
    for name, value in c.part("ema").items():
        assert torch.allclose(found.part("ema")[name], value, atol=1e-6), name
    with pytest.raises(TrainingError, match=r"needs trained .*denoiser.*: give --init"):
        run_export([], tmp_path / "none", preset="sd", sd=options)


def sprdiff_checkpoint(folder: Path) -> checkpoints.Checkpoint:
    return load_trained(folder)


def test_a_given_distortion_encoder_stays_as_it_is(tmp_path: Path, parts: Path, shards: Path) -> None:
    state = {k: v + 0.01 for k, v in small_model(parts).triple_encoder.distortion.state_dict().items()}
    save_file(state, tmp_path / "elic.safetensors")
    found = run("pixel", tmp_path, parts, shards, distortion=tmp_path / "elic.safetensors")
    kept = {k: v for k, v in found.part("ema").items() if k.startswith("triple_encoder.distortion.")}
    assert (
        all(torch.equal(v, state[k.removeprefix("triple_encoder.distortion.")]) for k, v in kept.items())
        and kept
    )
    assert not [k for k in found.part("model") if "triple_encoder.distortion" in k]
    save_file({"strange": torch.zeros(1)}, tmp_path / "elic.safetensors")
    with pytest.raises(WeightsError, match=r"elic\.safetensors does not hold ELIC's analysis transform"):
        run("pixel", tmp_path / "x", parts, shards, distortion=tmp_path / "elic.safetensors")


@pytest.mark.parametrize(
    ("stage", "changes", "error", "message"),
    [
        ("pixel", {"base": None}, TrainingError, "needs --base"),
        ("pixel", {"base": "no-where/at-all-\x00"}, WeightsError, "neither a folder nor the id"),
        ("vae", {}, TrainingError, "no stage 'vae'; there are pixel, codec, refine, joint"),
        ("codec", {}, TrainingError, "starts from trained latent_codec"),
        ("pixel", {"crop": 128}, TrainingError, "no photograph with both sides of at least 128"),
        ("pixel", {"crop": 100}, TrainingError, "multiple of 64"),
    ],
)
def test_wrong_arguments(
    stage: str,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    parts: Path,
    shards: Path,
) -> None:
    with pytest.raises(error, match=message):
        run(stage, tmp_path, parts, shards, **changes)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_stages_are_recipes_with_known_parts(parts: Path) -> None:
    names = list(checkpoints.own_state(small_model(parts)))
    assert {checkpoints.part_of(n) for n in names} == set(SD_PARTS) and small_model(
        parts
    ).config.groups == SMALL.groups
    for stage in SD_STAGES.values():
        assert set(stage.networks) <= set(SD_PARTS) and set(stage.needs) <= set(SD_PARTS)
        assert all(any(n.startswith(prefix) for n in names) for prefix in stage.trains)
