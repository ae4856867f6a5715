"""Tests of training preset `sd` on tiny random parts: every stage learns, and checkpoints are small, strict
and never half."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from torch import Tensor

import sd_training_helpers
from conftest import photo
from sd_helpers import SMALL, small_model, write_base
from sd_training_helpers import lpips_loss, made_up_lpips, make_sd_trainer, sd_options
from sprdiff.errors import TrainingError, WeightsError
from sprdiff.evaluate.metrics.perceptual import Lpips
from sprdiff.sd import pretrained
from sprdiff.sd.model import is_trained
from sprdiff.train import checkpoints
from sprdiff.train.data.pack import Packing, pack
from sprdiff.train.data.photos import CropSampler
from sprdiff.train.export.run import run_export
from sprdiff.train.loop import Trainer
from sprdiff.train.options import TrainOptions
from sprdiff.train.run import run_stage
from sprdiff.train.sd.losses import feature_distance, quarters
from sprdiff.train.sd.options import SDOptions
from sprdiff.train.sd.recipes import SD_PARTS, SD_STAGES
from sprdiff.train.sd.setup import build_model, load_lpips, load_trained
from training_helpers import memory_store, train_options, write_photos

STAGES = tuple(SD_STAGES)
GAIN = {"pixel": 0.8, "codec": 0.85, "refine": 0.8, "joint": 0.85}
"""The largest share of its first loss that each stage may leave after its steps on one photograph."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder that holds the tiny pretrained parts."""
    folder = tmp_path_factory.mktemp("parts")
    sd_options(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    pack(write_photos(folder / "photos", count=4, size=96), folder / "packed", Packing(min_side=64))
    return folder / "packed"


def run(stage: str, out: Path, parts: Path, shards: Path, **changes: Any) -> checkpoints.Checkpoint:
    """Run two steps of a stage by the public entry; return its checkpoint."""
    special = {k: changes.pop(k) for k in list(changes) if hasattr(SDOptions(), k)}
    options: dict[str, Any] = {
        "steps": 2,
        "batch": 2,
        "crop": 64,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        **changes,
    }
    sd = sd_options(parts, **special)
    run_stage(TrainOptions(stage=stage, preset="sd", data=[shards], out=out, sd=sd, **options))
    return checkpoints.load(out / f"{stage}.safetensors")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, parts: Path) -> Path:
    """Write a checkpoint of random weights for everything that is trained."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    model = small_model(parts)
    ema = {f"ema.{k}": v for k, v in checkpoints.own_state(model).items()}
    sources = checkpoints.sources_of(model)
    checkpoints.save(path, checkpoints.Checkpoint("codec", 0, model.config, SD_PARTS, ema, sources))
    return path


# ---------------------------------------------------------------------------- stages


def fixed_loss(trainer: Trainer) -> float:
    """Return the stage's loss on a batch at its last step, at levels and with noise that are always the
    same."""
    trainer.module.begin(trainer.stage.steps, 1.0)
    x = trainer.sampler.batch(0, 0, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        return float(trainer.module(x, torch.tensor([60.0, 200.0]))["loss"])


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_lowers_its_loss_and_trains_what_it_says(
    stage: str, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprdiff.train.loop.WARMUP", 1)
    trainer = make_sd_trainer(stage, parts, steps=10, lpips=lpips_loss() if stage == "codec" else None)
    frozen = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    before = fixed_loss(trainer)
    for _ in range(trainer.stage.steps):
        scalars = trainer.train_step()
    assert fixed_loss(trainer) < GAIN[stage] * before
    assert {"loss", "grad", "mse"} <= set(scalars)
    moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, frozen[k])}
    assert all(k.startswith(trainer.stage.trains) and is_trained(k) for k in moved)
    assert {checkpoints.part_of(k) for k in moved} <= set(trainer.stage.networks), (
        "a trained network would be lost"
    )
    assert not [n for n, p in trainer.module.named_parameters() if p.requires_grad and p.grad is not None]
    trainer.module(trainer.sampler.batch(0, 0, 2), torch.tensor([3.0, 200.0]))["loss"].backward()
    silent = [n for n, p in trainer.module.named_parameters() if p.requires_grad == (p.grad is None)]
    assert not silent, "several processes would wait for its gradient for ever"


def test_the_codec_overfits_four_photos(parts: Path) -> None:
    trainer = make_sd_trainer("pixel", parts, photos=4, steps=200, lr=4e-3)
    assert isinstance(trainer.sampler, CropSampler)
    trainer.sampler.augment = False  # the very same four, again and again
    x = torch.stack([torch.from_numpy(photo(64, 64, seed)).permute(2, 0, 1) / 255 for seed in range(4)])
    level = torch.full((4,), 255.0)

    def squared_error() -> float:
        with torch.no_grad():
            shown = trainer.module.reconstruct(x, level)
        assert shown is not None
        return float((shown[0] - x).square().mean())

    before = squared_error()
    for _ in range(trainer.stage.steps):
        trainer.train_step()
    alike = float((x - x.mean(0)).square().mean())
    assert squared_error() < min(0.3 * before, 0.6 * alike), "one picture for all four would be as good"


def test_refine_leaves_the_file_and_the_coarse_image_alone(parts: Path) -> None:
    trainer = make_sd_trainer("refine", parts)
    x, level = trainer.sampler.batch(0, 0, 1), torch.tensor([77.0])

    def decode() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        with torch.no_grad():
            decoded = trainer.model(x, level)
        return decoded.quantised.y_hat, decoded.reconstruction.coarse

    before = decode()
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, decode(), strict=True))


def test_the_discriminator_does_not_learn_from_the_receivers_term(parts: Path) -> None:
    module: Any = make_sd_trainer("refine", parts).module
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    module.fool(module.features(image)).sum().backward()
    assert image.grad is not None and image.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in module.discriminator.parameters())


def test_rate_and_discriminator_come_in_slowly(parts: Path) -> None:
    codec: Any = make_sd_trainer("codec", parts, steps=100).module
    refine: Any = make_sd_trainer("refine", parts, steps=100).module
    rates, heard = [], []
    for step in (0, 25, 50, 99):
        for module in (codec, refine):
            module.begin(step, step / 100)
        rates.append(codec.rate_weight())
        heard.append(refine.heard())
    assert rates == pytest.approx([0.25, 0.625, 1, 1]) and heard == [0, 1, 1, 1]
    refine.begin(7, 0.07)
    assert refine.heard() == pytest.approx(0.5)


def test_lpips_is_the_metric_with_a_gradient() -> None:
    backbone, heads = made_up_lpips()
    loss, measured = lpips_loss(), Lpips("vgg", backbone, heads)
    a, b = photo(64, 80, 1), photo(64, 80, 2)
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (a, b))
    x.requires_grad_()
    found = loss(x, y)
    assert float(found.detach()) == pytest.approx(measured.distance(a, b), rel=1e-4) and loss(
        y, y
    ).tolist() == [0]
    found.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)  # no feature, no direction: still a number
    loss(flat, y[..., :64]).sum().backward()
    assert flat.grad is not None and torch.isfinite(flat.grad).all()


def test_lpips_is_not_left_out_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("sprdiff.evaluate.metrics.backbones.metadata.distribution", _no_distribution)
    with pytest.raises(WeightsError, match=r"not found.*--no-lpips"):
        load_lpips(SDOptions())
    with caplog.at_level(logging.WARNING):
        assert load_lpips(SDOptions(lpips=False)) is None
    assert "without LPIPS" in caplog.text


def _no_distribution(name: str) -> None:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


def test_feature_distance_and_layers() -> None:
    a = torch.randn(2, 8, 3, 3)
    assert feature_distance(a, 5 * a).abs().max() < 1e-6
    assert feature_distance(a, -a).tolist() == pytest.approx([2, 2])
    assert quarters(12) == [3, 6, 9, 12] and quarters(2) == [1, 2]


def gradients(trainer: Trainer) -> list[Tensor]:
    torch.manual_seed(0)
    trainer.module(trainer.sampler.batch(0, 0, 1), torch.tensor([99.0]))["loss"].backward()
    return [p.grad.clone() for p in trainer.parameters if p.grad is not None]


def test_gradient_checkpointing_changes_no_gradient(parts: Path) -> None:
    plain = gradients(make_sd_trainer("codec", parts))
    trainer = make_sd_trainer("codec", parts)
    trainer.model.gradient_checkpointing()  # type: ignore[operator]
    again = gradients(trainer)
    assert len(plain) == len(again) > 100
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(plain, again, strict=True))


def test_a_step_in_bfloat16(parts: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        recipe = replace(SD_STAGES["refine"], steps=4, batch=1, crop=64)
        store = memory_store([photo(64, 64)])
        half = Accelerator(cpu=True, mixed_precision="bf16")
        trainer = Trainer(
            recipe,
            recipe.build(small_model(parts), recipe.trains),
            store,
            store,
            train_options("refine", parts),
            half,
        )
        assert np.isfinite(float(trainer.train_step()["grad"])) and trainer.skipped == 0
        assert {p.dtype for p in trainer.parameters} == {torch.float32}
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


# ---------------------------------------------------------------------------- checkpoints


def test_checkpoints_hold_what_is_trained_and_resume_exactly(
    tmp_path: Path, parts: Path, shards: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run("refine", tmp_path / "straight", parts, shards, init=[start], steps=3)
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
        run("refine", tmp_path / "killed", parts, shards, init=[start], steps=3, save_every=0.0)
    resumed = run("refine", tmp_path / "killed", parts, shards, resume=True, steps=3)
    assert set(resumed.tensors) == set(straight.tensors)
    assert not [k for k, v in straight.tensors.items() if not torch.equal(resumed.tensors[k], v)]


def test_weights_of_other_pretrained_parts_are_refused(tmp_path: Path, parts: Path, start: Path) -> None:
    other = tmp_path / "other"
    sd_options(other)
    write_base(other / "base", seed=1)
    model = build_model(sd_options(other))
    with pytest.raises(TrainingError, match=r"another .*safetensors of the part base"):
        checkpoints.load_networks(model, checkpoints.load(start), start)
    again = build_model(sd_options(parts))
    assert set(checkpoints.load_networks(again, checkpoints.load(start), start)) == set(SD_PARTS)


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
    tmp_path: Path, parts: Path, shards: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(TrainingError, match="pip install bitsandbytes"):
        run("refine", tmp_path / "none", parts, shards, init=[start], adam8bit=True)

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
    run("refine", tmp_path, parts, shards, init=[start], adam8bit=True)
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


def test_export_and_training_on_from_it(tmp_path: Path, parts: Path, shards: Path, start: Path) -> None:
    out = tmp_path / "trained"
    options = sd_options(parts)
    run_export([start], out, data=[shards], preset="sd", crops=8, crop=64, card={"bpp": 0.02}, sd=options)
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
