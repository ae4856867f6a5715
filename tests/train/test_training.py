"""Training: every stage learns, a killed run goes on as if nothing had happened, data and checkpoints are checked."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sprdiff.train.refine import RefineStage
from torch import Tensor

import training_helpers
from conftest import photo
from sprdiff.errors import TrainingError
from sprdiff.models.config import NANO
from sprdiff.models.latent_codec import LAMBDA_MAX, LAMBDA_MIN, lambda_of
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.train import checkpoints, run_stage
from sprdiff.train.checkpoints import PARTS, Checkpoint, load, load_networks, part_of, save, trim
from sprdiff.train.data.photos import CropSampler, holdout, open_store
from sprdiff.train.loop import PATIENCE, Trainer, schedule
from sprdiff.train.losses import FeatureLoss
from sprdiff.train.recipes import STAGES
from sprdiff.train.report import Report
from training_helpers import (
    make_trainer,
    memory_store,
    nano_model,
    write_checkpoint,
    write_photos,
    write_teacher,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "darknet.npz")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of every network, random."""
    return write_checkpoint(tmp_path_factory.mktemp("start") / "start.safetensors", nano_model())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), count=3, size=96)


# ---------------------------------------------------------------------------- stages


def fixed_loss(trainer: Trainer) -> float:
    """The stage's loss on a batch, at levels and with noise that are always the same."""
    x = trainer.sampler.batch(0, 0, 4)
    total = 0.0
    with torch.no_grad():
        for seed in range(4):
            torch.manual_seed(seed)
            scalars = trainer.module(x, torch.tensor([10.0, 90.0, 170.0, 250.0]))
            total += float(scalars["feature" if trainer.stage.name == "refine" else "loss"])
    return total / 4


GAIN = {"vae": 0.7, "pixel": 0.8, "semantic": 0.9, "denoise": 0.8, "codec": 0.9, "refine": 0.9}
"""At most this share of its first loss is left to each stage after 30 steps on one photo."""


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_lowers_its_loss(stage: str, tmp_path: Path, teacher: Path) -> None:
    trainer = make_trainer(stage, tmp_path, teacher)
    before = fixed_loss(trainer)
    for _ in range(trainer.stage.steps):
        trainer.train_step()
    assert fixed_loss(trainer) < GAIN[stage] * before


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_what_it_says_and_nothing_else(stage: str, tmp_path: Path, teacher: Path) -> None:
    trainer = make_trainer(stage, tmp_path, teacher)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    for _ in range(2):
        scalars = trainer.train_step()
    moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith(trainer.stage.trains) for k in moved)
    assert {part_of(k) for k in moved} <= set(trainer.stage.networks), "a trained network would not be kept"
    assert {"loss", "grad"} <= set(scalars)


@pytest.mark.parametrize("stage", STAGES)
def test_every_trained_parameter_gets_a_gradient(stage: str, tmp_path: Path, teacher: Path) -> None:
    """Or several processes would wait for it for ever."""
    trainer = make_trainer(stage, tmp_path, teacher)
    trainer.module(trainer.sampler.batch(0, 0, 2), torch.tensor([3.0, 200.0]))["loss"].backward()
    silent = [n for n, p in trainer.module.named_parameters() if p.requires_grad and p.grad is None]
    stray = [n for n, p in trainer.module.named_parameters() if not p.requires_grad and p.grad is not None]
    assert not silent and not stray


def test_the_vae_stage_measures_its_latent(tmp_path: Path, teacher: Path) -> None:
    trainer = make_trainer("vae", tmp_path, teacher)
    trainer.finish()
    with torch.no_grad(), trainer.averaged():
        latent = torch.cat([trainer.model.clean_latent(trainer.sampler.batch(10**9 + i, 0, 2)) for i in range(16)])
    assert latent.mean((0, 2, 3)).abs().max() < 1e-3 and (latent.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_refine_leaves_the_file_and_the_coarse_image_alone(tmp_path: Path, teacher: Path) -> None:
    trainer = make_trainer("refine", tmp_path, teacher)
    x, level = trainer.sampler.batch(0, 0, 1), torch.tensor([77.0])

    def decode() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        with torch.no_grad():
            decoded = trainer.model(x, level)
        return decoded.quantised.y_hat, decoded.reconstruction.coarse

    before = decode()
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, decode(), strict=True))


def share(monkeypatch: pytest.MonkeyPatch, image: float, features: float) -> None:
    """Give both critics shares; the recipe has none."""
    shares = {**RefineStage.SHARES, "critic_image": image, "critic_features": features}
    monkeypatch.setattr(RefineStage, "SHARES", shares)


def test_the_critic_does_not_learn_from_the_generators_term(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, 0.5, 5.0)
    module: Any = make_trainer("refine", tmp_path, teacher).module
    image, condition = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
    features = [module.features.activations(image)[i] for i in module.judged]
    sum(module.critics.fool(image, condition, features)).backward()
    assert image.grad is not None and image.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in module.critics.parameters())


def test_the_terms_pull_at_the_image_by_their_shares(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their natural size; and the critics not before they are heard."""
    share(monkeypatch, 0.5, 5.0)
    module: Any = make_trainer("refine", tmp_path, teacher).module
    target = torch.rand(6, 1, 3, 8, 8)
    scales = {
        "distortion": 1.0,
        "feature": 100.0,
        "statistics": 10.0,
        "grid": 0.1,
        "critic_image": 1e-3,
        "critic_features": 10.0,
    }

    def pull(silent: str, step: int) -> Tensor:
        module.step = step
        image = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
        terms = {k: s * (image * t * (k != silent)).sum() for (k, s), t in zip(scales.items(), target, strict=True)}
        module.sizes.zero_()
        module._balanced(image, terms).backward()
        assert image.grad is not None
        return image.grad

    late = module.CRITICS_FROM + module.CRITICS_RAMP
    for name in scales:
        found = (pull("", late) - pull(name, late)).square().mean().sqrt() / target[0].square().mean().sqrt()
        if name != "distortion":
            assert float(found) == pytest.approx(module.SHARES[name], rel=1e-3)
            assert torch.allclose(pull("", 0), pull(name, 0)) == name.startswith("critic")


def test_a_small_batch_has_a_sample_for_the_diffusion_objective(tmp_path: Path, teacher: Path) -> None:
    scalars = make_trainer("codec", tmp_path, teacher).train_step()
    assert float(scalars["one"].detach()) > 0 and float(scalars["diffusion"].detach()) > 0


def test_a_term_that_joins_late_starts_at_its_own_size(tmp_path: Path, teacher: Path) -> None:
    module: Any = make_trainer("refine", tmp_path, teacher).module
    module.sizes.zero_()
    module.sizes[0] = 1.0  # as an earlier leg leaves them that had the distortion only
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    terms = {name: (image * torch.rand(1, 3, 8, 8)).sum() for name in module.SHARES}
    module._balanced(image, terms)
    joined = module.sizes[[i for i, share in enumerate(module.SHARES.values()) if share > 0][1:]]
    assert float(joined.min()) > 100  # in units of 1e-3; gradients here are near a half


@pytest.mark.parametrize("critics", [0.0, 0.5])
def test_critics_learn_if_they_have_a_share(
    critics: float, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, critics, critics)
    trainer = make_trainer("refine", tmp_path, teacher)
    module: Any = trainer.module
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    scalars = trainer.train_step()
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("model.vae_decoder") for name in moved)
    assert any(name.startswith("critics") for name in moved) == (critics > 0) == (float(scalars["critic"]) > 0)


def test_feature_loss(teacher: Path) -> None:
    loss, a, b = FeatureLoss(teacher), torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    assert loss(a, a).tolist() == [0, 0] and loss(a, b).shape == (2,) and loss(a, b).min() > 0.01


def test_lambda_grows_geometrically_from_end_to_end() -> None:
    low, middle, high = lambda_of(torch.tensor([0.0, 127.5, 255.0])).tolist()
    assert (low, high) == pytest.approx((LAMBDA_MIN, LAMBDA_MAX)) and middle**2 == pytest.approx(low * high)


def test_schedule_warms_up_holds_and_decays() -> None:
    factors = [schedule(step, 1000) for step in range(1000)]
    assert factors[0] == 0.01 and factors[99] == 1 and factors[500] == 1
    assert factors[850] == pytest.approx(0.5) and 0 < factors[-1] < 0.01


# ---------------------------------------------------------------------------- kill and resume


class KilledError(Exception):
    """Stands for a kill at the start of a step."""


def run(stage: str, out: Path, folder: Path, teacher: Path, start: Path, **changes: Any) -> dict[str, Tensor]:
    """Six steps of a stage by the public entry; returns the checkpoint's tensors."""
    options = {"steps": 6, "batch": 2, "crop": 64, "init": [start], "device": "cpu", "threads": 1, **changes}
    run_stage(stage, preset="nano", data=[folder], out=out, teacher=teacher, **options)
    return load_file(out / f"{stage}.safetensors")


@pytest.mark.parametrize("stage", ["pixel", "refine"])
def test_a_killed_run_resumes_bit_identically(
    stage: str, tmp_path: Path, folder: Path, teacher: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(stage, tmp_path / "straight", folder, teacher, start)
    step = Trainer.train_step

    def killed(trainer: Trainer) -> dict[str, Tensor]:
        if trainer.step == 4:
            raise KilledError
        return step(trainer)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Trainer, "train_step", killed)
        run(stage, tmp_path / "killed", folder, teacher, start, save_every=0.0)
    assert load(tmp_path / "killed" / f"{stage}.safetensors").step == 4
    resumed = run(stage, tmp_path / "killed", folder, teacher, start, init=None, resume=True)
    assert set(resumed) == set(straight)
    different = [k for k in straight if not torch.equal(resumed[k], straight[k])]
    assert not different
    assert any(k.startswith("exp_avg_sq.") for k in straight)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, folder: Path, teacher: Path, start: Path) -> None:
    once = run("pixel", tmp_path, folder, teacher, start)
    again = run("pixel", tmp_path, folder, teacher, start, resume=True)
    assert all(torch.equal(again[k], v) for k, v in once.items() if not k.startswith("ema."))


@pytest.mark.parametrize("stage", ["pixel", "refine"])
def test_a_run_goes_on_from_committed_weights_alone(
    stage: str, tmp_path: Path, folder: Path, teacher: Path, start: Path
) -> None:
    run(stage, tmp_path / "one", folder, teacher, start)
    small = tmp_path / "small.safetensors"
    trim(tmp_path / "one" / f"{stage}.safetensors", small)
    kept = load(small)
    assert kept.networks == STAGES[stage].networks and kept.step == 6
    assert {v.dtype for v in kept.tensors.values()} == {torch.float16}
    assert {part_of(k.removeprefix("ema.")) for k in kept.tensors if k.startswith("ema.")} == set(kept.networks)
    assert any(k.startswith("extra.critics.") for k in kept.tensors) == (stage == "refine")
    # A rate of zero: what was loaded is what is saved.
    found = run(stage, tmp_path / "two", folder, teacher, start, init=[start, small], lr=1e-12, steps=1)
    for name, value in kept.tensors.items():
        if not name.endswith(("._u", "._v", ".sizes")):  # power iterations and averages go on
            assert torch.allclose(found[name], value.float(), atol=1e-6), name


def test_resume_without_a_checkpoint_still_needs_what_the_stage_needs(
    tmp_path: Path, folder: Path, teacher: Path, start: Path
) -> None:
    with pytest.raises(TrainingError, match="give --init"):
        run("codec", tmp_path, folder, teacher, start, init=None, resume=True)


def test_averages_are_swapped_in_and_out(tmp_path: Path, teacher: Path) -> None:
    trainer = make_trainer("pixel", tmp_path, teacher)
    for _ in range(3):
        trainer.train_step()
    now, average = trainer.parameters[0].detach().clone(), trainer.ema[0].clone()
    assert not torch.equal(now, average)
    with trainer.averaged():
        assert torch.equal(trainer.parameters[0], average)
    assert torch.equal(trainer.parameters[0], now) and torch.equal(trainer.ema[0], average)


# ---------------------------------------------------------------------------- several processes


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", count=3, size=96)
    write_teacher(tmp_path / "teacher.npz")
    write_checkpoint(tmp_path / "start.safetensors", nano_model())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    paths = [str(Path(p)) for p in sys.path if p]
    done = subprocess.run(
        [*command, training_helpers.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-10000:]
    for stage in STAGES:
        one, two = (json.loads((tmp_path / "run" / f"{stage}.{rank}.json").read_text()) for rank in (0, 1))
        assert one["processes"] == two["processes"] == 2, "accelerate ran one process"
        assert one["wrapped"] == "DistributedDataParallel" and one["moved"]
        assert one["weights"] == two["weights"], f"the processes of {stage} have drifted apart"
        assert one["crops"] != two["crops"], "both processes see the same crops"
        assert load(tmp_path / "run" / f"{stage}.safetensors").step == 2


# ---------------------------------------------------------------------------- checkpoints


def small_checkpoint(value: float) -> Checkpoint:
    return Checkpoint("vae", 1, NANO, ("latent_",), {"ema.latent_mean": torch.full((8,), value)})


@pytest.mark.parametrize("moment", ["save_file", "replace"])
def test_a_failed_save_leaves_the_old_checkpoint(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "vae.safetensors"
    save(path, small_checkpoint(1.0))

    def full(*args: Any, **_: Any) -> None:
        if moment == "save_file":
            Path(args[1]).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints if moment == "save_file" else os, moment, full)
    with pytest.raises(TrainingError, match=r"cannot write the checkpoint .*No space"):
        save(path, small_checkpoint(2.0))
    monkeypatch.undo()
    assert load(path).tensors["ema.latent_mean"].tolist() == [1.0] * 8
    assert os.listdir(path.parent) == ["vae.safetensors"]


def test_checkpoints_carry_what_describes_them(tmp_path: Path) -> None:
    save(tmp_path / "a", small_checkpoint(3.0))
    found = load(tmp_path / "a")
    assert replace(found, tensors={}) == replace(small_checkpoint(3.0), tensors={})


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint at all", bytes(100)])
def test_damaged_checkpoints(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"x\.safetensors: not a checkpoint"):
        load(path)


def test_a_truncated_checkpoint(tmp_path: Path, start: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(start.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="not a checkpoint"):
        load(path)


def test_loading_is_strict(start: Path) -> None:
    good, model = load(start), SPRDiff(NANO)
    name = "ema.denoiser.enter.weight"
    without = {k: v for k, v in good.tensors.items() if k != name}
    for tensors, message in (
        (without, "lacks 1 weights, denoiser.enter.weight"),
        ({**good.tensors, "ema.denoiser.more": torch.zeros(1)}, "1 unknown weights, denoiser.more"),
        ({**good.tensors, name: good.tensors[name][:1]}, "denoiser.enter.weight has shape"),
    ):
        with pytest.raises(TrainingError, match=message):
            load_networks(model, replace(good, tensors=tensors), start)
    assert load_networks(model, good, start) == PARTS
    assert torch.equal(model.denoiser.enter.weight.detach(), good.tensors[name])


def test_only_the_named_networks_are_loaded(start: Path) -> None:
    model = SPRDiff(NANO)
    before = model.denoiser.enter.weight.detach().clone()
    load_networks(model, replace(load(start), networks=("vae_decoder",)), start)
    assert torch.equal(model.denoiser.enter.weight.detach(), before)


def test_the_parts_cover_the_model() -> None:
    assert {part_of(k) for k in SPRDiff(NANO).state_dict()} == set(PARTS)
    assert part_of("something_else") == ""


def test_resume_refuses_another_stage_or_size(tmp_path: Path, teacher: Path, start: Path) -> None:
    trainer = make_trainer("pixel", tmp_path, teacher)
    for other in (load(start), replace(load(start), stage="pixel", config=replace(NANO, heads=1))):
        save(trainer.path, other)
        with pytest.raises(TrainingError, match="another configuration"):
            trainer.resume()
    save(trainer.path, replace(load(start), stage="pixel"))
    with pytest.raises(TrainingError, match="cannot resume"):
        trainer.resume()


def test_extras_must_fit(tmp_path: Path, teacher: Path, start: Path) -> None:
    trainer = make_trainer("refine", tmp_path, teacher)
    with pytest.raises(TrainingError, match=r"no fitting (critics|sizes)"):
        trainer.load_extras(load(start))


# ---------------------------------------------------------------------------- numbers that are none


def poison(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = trainer.module.forward

    def broken(x: Tensor, level: Tensor) -> dict[str, Tensor]:
        scalars = forward(x, level)
        return {**scalars, "loss": scalars["loss"] * float("nan")}

    monkeypatch.setattr(trainer.module, "forward", broken)


def test_a_step_without_a_finite_gradient_is_skipped(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer("pixel", tmp_path, teacher)
    trainer.train_step()
    before = [p.detach().clone() for p in trainer.parameters]
    with monkeypatch.context() as patch:
        poison(trainer, patch)
        trainer.train_step()
    assert trainer.step == 2 and "step 1: the gradient is not finite" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))
    trainer.train_step()
    assert checkpoints.all_finite(dict(enumerate(trainer.ema)))  # type: ignore[arg-type]
    assert not torch.equal(before[0], trainer.parameters[0]), "training does not go on"


def test_a_run_that_diverged_ends_with_an_error(tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer("vae", tmp_path, teacher)
    poison(trainer, monkeypatch)
    with pytest.raises(TrainingError, match="diverged"):
        for _ in range(PATIENCE):
            trainer.train_step()


# ---------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "paint"}, "no stage 'paint'; there are vae, pixel"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"stage": "semantic", "teacher": None}, "give --teacher"),
        ({"stage": "semantic", "teacher": Path("nowhere.npz")}, "nowhere.npz: not the weights"),
        ({"crop": 100}, "multiple of 64"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"stage": "codec"}, "starts from trained denoiser, latent_"),
        ({"data": []}, "no photographs"),
        ({"crop": 128}, "both sides of at least 128"),
        ({"init": [Path("nowhere.safetensors")]}, "nowhere.safetensors: not a checkpoint"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str, tmp_path: Path, folder: Path) -> None:
    options = {"stage": "pixel", "preset": "nano", "data": [folder], "crop": 64, "device": "cpu", **changes}
    with pytest.raises(TrainingError, match=message):
        run_stage(options.pop("stage"), out=tmp_path / "out", **options)


# ---------------------------------------------------------------------------- photographs


def write_shard(path: Path, names: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return path


def png(size: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(size, size, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def test_folders_and_shards(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", count=2)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "UPPER.PNG").write_bytes(png(70, 5))
    (folder / "notes.txt").write_text("not a photo")
    shard = write_shard(tmp_path / "shard.tar", {"a/x.png": png(80, 6), "a/x.json": b"{}", "y.jpg": png(90, 7)})
    store = open_store([folder, shard], tmp_path / "cache", [])
    assert store.names == ("UPPER.PNG", "made-0.png", "made-1.png", "x.png", "y.jpg")
    assert np.array_equal(store.photo(1), photo(64, 64, 0)) and np.array_equal(store.photo(3), photo(80, 80, 6))
    assert store.shapes.tolist() == [[70, 70], [64, 64], [64, 64], [80, 80], [90, 90]]


def test_photographs_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = write_photos(tmp_path / "photos"), tmp_path / "cache"
    open_store([folder], cache, [])
    with monkeypatch.context() as patch:
        patch.setattr("sprdiff.train.data.photos.open_rgb", None)
        assert len(open_store([folder], cache, [])) == 2
    (folder / "new.png").write_bytes(png(64, 9))
    assert len(open_store([folder], cache, [])) == 3
    assert not [p for p in cache.iterdir() if p.suffix not in (".u8", ".json")]


def test_large_photographs_are_reduced(tmp_path: Path) -> None:
    Image.new("RGB", (1800, 900)).save(tmp_path / "large.png")
    assert open_store([tmp_path], tmp_path / "cache", []).shapes.tolist() == [[768, 1536]]


def test_sources_are_left_out_by_prefix(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", count=2)
    (folder / "flickr_1.png").write_bytes(png(64, 9))
    assert open_store([folder], tmp_path / "cache", ["flickr_", "other"]).names == (
        "made-0.png",
        "made-1.png",
    )
    with pytest.raises(TrainingError, match="left after --exclude"):
        open_store([folder], tmp_path / "cache", ["flickr_", "made"])


def test_corrupt_photographs_are_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = png(64, 1)
    shard = write_shard(tmp_path / "s.tar", {"a.png": whole[: len(whole) // 2], "b.png": b"", "c.png": whole})
    with caplog.at_level(logging.WARNING):
        assert open_store([shard], tmp_path / "cache", []).names == ("c.png",)
    assert "skipped a.png" in caplog.text and "skipped b.png" in caplog.text


def test_sources_without_photographs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.tar").write_bytes(b"no shard" * 100)
    (tmp_path / "broken.png").write_bytes(b"no photo")
    cut = write_shard(tmp_path / "whole.tar", {"a.png": png(64, 1)}).read_bytes()[:1000]
    (tmp_path / "cut.tar").write_bytes(cut)
    for name, message in (
        ("empty", "no photographs"),
        ("missing", "no such folder"),
        ("broken.tar", "broken.tar: not readable"),
        ("cut.tar", "cut.tar: not readable"),
        ("broken.png", "none of the files"),
    ):
        with pytest.raises(TrainingError, match=message):
            open_store([tmp_path / name], tmp_path / "cache", [])
    assert not list((tmp_path / "cache").glob("*.part"))


def test_crops_depend_on_seed_step_and_rank_alone() -> None:
    store = memory_store([photo(200, 300, 1), photo(150, 90, 2)])
    sampler = CropSampler(store, 64, seed=3)
    first = sampler.batch(5, 1, 4)
    assert first.shape == (4, 3, 64, 64) and first.dtype == torch.float32 and 0 <= first.min() <= first.max() <= 1
    sampler.batch(6, 0, 4)
    assert torch.equal(sampler.batch(5, 1, 4), first)
    assert torch.equal(CropSampler(store, 64, seed=3).batch(5, 1, 4), first)
    for other in (sampler.batch(6, 1, 4), sampler.batch(5, 0, 4), CropSampler(store, 64, 4).batch(5, 1, 4)):
        assert not torch.equal(other, first)


def test_neighbouring_steps_and_processes_share_no_crops() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    sampler = CropSampler(memory_store([noise]), 64, seed=0)
    crops = [crop for step in range(30) for rank in (0, 1) for crop in sampler.batch(step, rank, 8)]
    assert len({crop.contiguous().numpy().tobytes() for crop in crops}) >= len(crops) - 1


def test_crops_come_from_large_photos_and_are_flipped() -> None:
    small, large = np.full((64, 64, 3), 0, np.uint8), np.full((64, 192, 3), 200, np.uint8)
    large[:, ::2] = 255
    crops = CropSampler(memory_store([small, large]), 64, seed=0).batch(0, 0, 400)
    from_large = crops[:, 0, 0, 0] > 0
    assert 0.8 < from_large.float().mean() < 0.97  # 9 : 1, by the square of the area
    assert 0.4 < (crops[from_large, 0, 0, 0] == 1).float().mean() < 0.6


def test_too_small_photographs_are_passed_over() -> None:
    sampler = CropSampler(memory_store([photo(63, 500), photo(64, 64)]), 64, seed=0)
    assert len(sampler.store) == 1
    with pytest.raises(TrainingError, match="at least 128"):
        CropSampler(memory_store([photo(64, 64)]), 128, seed=0)


def test_holdout_splits_by_name() -> None:
    store = replace(memory_store([photo(8, 8)] * 300), names=tuple(f"{i}.png" for i in range(300)))
    train, valid = holdout(store)
    assert set(train.names) | set(valid.names) == set(store.names) and not set(train.names) & set(valid.names)
    assert 1 <= len(valid) <= 15
    again, _ = holdout(store.select(np.arange(300) % 2 == 0))
    assert set(again.names) <= set(train.names)
    assert [len(s) for s in holdout(memory_store([photo(8, 8)]))] == [1, 1]


# ---------------------------------------------------------------------------- report


def test_a_run_tells_how_it_goes(tmp_path: Path, folder: Path, teacher: Path, start: Path) -> None:
    valid = write_photos(tmp_path / "valid", count=1, size=192)
    run("pixel", tmp_path / "out", folder, teacher, start, valid=[valid], steps=2)
    rows = [json.loads(line) for line in (tmp_path / "out" / "pixel.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 2 and {"loss", "bpp", "mse", "lr", "seconds_per_step"} <= set(rows[0])
    figures = rows[1]["validation"]
    assert [f["level"] for f in figures] == [32, 128, 224] and all(0 < f["bpp"] < 10 for f in figures)
    assert all(5 < f["psnr"] < 60 and 0 <= f["ms_ssim"] <= 1 for f in figures)
    assert list((tmp_path / "out" / "tensorboard" / "pixel").iterdir())


def test_photographs_too_small_to_validate_on_are_passed_over(tmp_path: Path, teacher: Path) -> None:
    trainer = make_trainer("pixel", tmp_path, teacher)
    report = Report(tmp_path, "pixel", 1, active=True)
    trainer.validate(report)
    report.close()
    assert (tmp_path / "pixel.jsonl").read_text() == ""


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    report = Report(tmp_path / "out", "pixel", 1, active=False)
    report.step(1, {"loss": torch.ones(())}, 0.1)
    report.close()
    assert not (tmp_path / "out").exists()


def test_stages_are_recipes_with_known_parts() -> None:
    names = [n for n, _ in SPRDiff(NANO).named_parameters()]
    for stage in STAGES.values():
        assert set(stage.networks) <= set(PARTS) and set(stage.needs) <= set(PARTS)
        assert all(any(n.startswith(prefix) for n in names) for prefix in stage.trains)
