"""Tests of what the stages of preset `sd` price, draw and train: rates of files, levels, optimisers,
precision, memory."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import photo
from sd_helpers import SMALL, small_model
from sd_training_helpers import lpips_loss, make_sd_trainer, sd_options
from sprdiff.errors import TrainingError, WeightsError
from sprdiff.models.latent_codec import LatentCodec
from sprdiff.models.rate import lambda_of
from sprdiff.sd.config import SD
from sprdiff.train import checkpoints
from sprdiff.train.data.pack import Packing, pack
from sprdiff.train.options import TrainOptions
from sprdiff.train.precision import PATIENT, START, LossScale
from sprdiff.train.run import run_stage
from sprdiff.train.sd.losses import LpipsLoss
from sprdiff.train.sd.recipes import RATES, SD_PARTS, SD_STAGES
from sprdiff.train.sd.setup import check_config, default_workers
from sprdiff.train.stages.base import draw_levels
from sprdiff.train.state import load_extras
from sprdiff.train.validation.rates import Judgement
from sprdiff.train.validation.report import Report
from training_helpers import memory_store, write_photos

LEVELS = torch.tensor([60.0, 200.0])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder that holds the tiny pretrained parts."""
    folder = tmp_path_factory.mktemp("parts")
    sd_options(folder)
    return folder


# ---------------------------------------------------------------------------- rates


@pytest.mark.parametrize("stage", ["pixel", "codec", "joint"])
def test_the_logged_rate_is_what_files_cost(stage: str, parts: Path) -> None:
    trainer = make_sd_trainer(stage, parts)
    x: Any = trainer.sampler.batch(0, 0, 2)
    losses = []
    for step in (0, 10_000):
        trainer.module.begin(step, 0.0)
        torch.manual_seed(step)
        with torch.no_grad():
            scalars, shown = trainer.module(x, LEVELS), trainer.module.reconstruct(x, LEVELS)
        assert shown is not None
        assert float(scalars["bpp"]) == pytest.approx(float(shown[1].mean()), rel=1e-4)
        losses.append(float(scalars["loss"]))
    if stage == "pixel":
        assert losses[0] != losses[1], "the first steps minimise the bits of noisy latents"


def test_silent_channels_cost_nothing_but_with_noise() -> None:
    """At the true number of channels noise charges .011 bits per pixel for latents that say nothing."""
    codec: Any = LatentCodec(SD)
    with torch.no_grad():
        for step in codec.context:
            step.layer2.weight.zero_()
            step.layer2.bias.zero_()
        codec.z_index.zero_()
        y, z = torch.zeros(1, SD.y_channels, 8, 8), torch.zeros(1, SD.z_channels, 2, 2)
        costs = [codec(y, z, torch.tensor([128.0]), hard=hard) for hard in (True, False)]
    hard, noisy = (float((q.y_bits + q.z_bits) / 512**2) for q in costs)
    assert hard < 0.0005 and noisy == pytest.approx(0.011, rel=0.05)


def rate_of(weight: Tensor) -> Tensor:
    """Return the bits per pixel of a weight λ by StableCodec's published run: .0138 at 0.7, .034 at 4.15,
    log-linear."""
    slope = math.log(0.034 / 0.0138) / math.log(4.15 / 0.7)
    return 0.0138 * (weight / 0.7) ** slope


def test_levels_lie_where_files_are_made() -> None:
    torch.manual_seed(0)
    levels = draw_levels(4000)
    share = {}
    for bounds in (SD.lambda_range, (0.7, 60.0)):
        rate = rate_of(lambda_of(levels, bounds))
        share[bounds] = float(((rate > 0.005) & (rate < 0.0415)).float().mean())
    assert share[SD.lambda_range] > 0.95 and share[0.7, 60.0] < 0.6
    ends = rate_of(lambda_of(torch.tensor([0.0, 255.0]), SD.lambda_range))
    assert ends.tolist() == pytest.approx([0.0082, 0.041], abs=0.002)
    assert min(RATES) == 0.005 and max(RATES) == 0.04


def test_a_band_of_levels(parts: Path) -> None:
    model = small_model(parts)
    recipe = SD_STAGES["joint"]
    module = recipe.build(model, recipe.trains, levels=[100, 160])
    drawn = module.draw_levels(2000, torch.device("cpu"))
    assert (float(drawn.min()), float(drawn.max())) == (100, 160) and torch.equal(drawn, drawn.round())
    for wrong in ([160, 100], [-1, 20], [0, 256]):
        with pytest.raises(TrainingError, match="levels must be two numbers from 0 to 255"):
            recipe.build(model, recipe.trains, levels=wrong)


# ---------------------------------------------------------------------------- optimisers


def settings(trainer: Any) -> dict[str, tuple[float, tuple[float, float]]]:
    """Return the learning rate, as a share of the stage's, and the betas of every trained parameter."""
    names = {id(p): n for n, p in trainer.ema.parameters.items()}
    found: dict[str, tuple[float, tuple[float, float]]] = {}
    for group in trainer.optimizer.param_groups:
        found |= {
            names[id(p)]: (group["lr"] / trainer.stage.lr, tuple(group["betas"])) for p in group["params"]
        }
    return found


@pytest.mark.parametrize("stage", ["refine", "joint"])
def test_the_discriminator_has_settings_of_its_own(
    stage: str, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprdiff.train.loop.WARMUP", 1)
    trainer = make_sd_trainer(stage, parts)
    trainer.train_step()
    found = settings(trainer)
    assert len(found) == len(trainer.parameters)
    for name, (rate, betas) in found.items():
        slow = name.startswith(
            ("model.latent_codec", "model.triple_encoder.fuse", "model.reconstruction.coarse")
        )
        slow = slow or (name.startswith("model.synthesis") and "estimate" not in name)
        wanted = 2.0 if name.startswith("discriminator.") else 0.1 if slow else 1.0
        assert rate == pytest.approx(wanted), name
        assert betas == ((0.0, 0.99) if wanted == 2 else (0.5, 0.99)), name
    assert any(rate == pytest.approx(0.1) for rate, _ in found.values()) is (stage == "joint")


def test_joint_trains_the_entropy_path_and_refine_does_not(parts: Path) -> None:
    for stage, moves in (("refine", False), ("joint", True)):
        trainer = make_sd_trainer(stage, parts)
        codec: Any = trainer.model.latent_codec
        before = codec.context[0].layer0.weight.detach().clone()
        trainer.train_step()
        after = codec.context[0].layer0.weight
        assert torch.equal(before, after) is not moves


def test_what_travels_keeps_the_discriminator(parts: Path, tmp_path: Path) -> None:
    trainer = make_sd_trainer("refine", parts)
    trainer.path = tmp_path / "refine.safetensors"
    trainer.train_step()
    trainer.save()
    checkpoints.trim(trainer.path, tmp_path / "small.safetensors")
    kept = checkpoints.load(tmp_path / "small.safetensors")
    other = make_sd_trainer("refine", parts)
    load_extras(other.module, kept)
    for name, value in trainer.module.extra_state().items():
        assert torch.allclose(other.module.extra_state()[name], value, atol=2e-3), name


def test_weights_mean_what_their_configuration_says(parts: Path, tmp_path: Path) -> None:
    model = small_model(parts)
    c = checkpoints.Checkpoint("codec", 0, model.config, SD_PARTS, {})
    check_config(model.config, c, tmp_path)
    changes: dict[str, Any] = {"lora_alpha": 32, "prediction": "base", "lambda_range": (0.7, 60.0)}
    for field, value in changes.items():
        with pytest.raises(TrainingError, match=rf"was trained with {field} .*give the same --"):
            check_config(replace(model.config, **{field: value}), c, tmp_path)


# ---------------------------------------------------------------------------- precision


def gradient_of(
    parts: Path, precision: str = "fp32", accumulate: int = 1
) -> tuple[list[Tensor], dict[str, Tensor]]:
    trainer = make_sd_trainer("codec", parts, lpips=lpips_loss(), precision=precision, accumulate=accumulate)
    scalars = trainer.gradients(0)
    return [p.grad.clone() for p in trainer.parameters if p.grad is not None], scalars


def alike(some: list[Tensor], others: list[Tensor]) -> float:
    """Return the cosine of the angle between two gradients."""
    a, b = (torch.cat([g.flatten() for g in gradients]) for gradients in (some, others))
    return float(torch.cosine_similarity(a, b, dim=0))


def test_a_batch_in_parts_has_the_same_gradient(parts: Path) -> None:
    (whole, scalars), (summed, means) = gradient_of(parts), gradient_of(parts, accumulate=2)
    assert len(whole) == len(summed) and scalars.keys() == means.keys()
    # Networks round their activations: what differs in the last bit may fall on either side.
    assert alike(whole, summed) > 0.9999
    assert float(means["bpp"]) == pytest.approx(float(scalars["bpp"].detach()), rel=1e-4)
    with pytest.raises(TrainingError, match="a batch of 2 cannot be computed in 3 equal parts"):
        make_sd_trainer("codec", parts, accumulate=3)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_every_precision_trains(parts: Path, precision: str) -> None:
    exact, _ = gradient_of(parts)
    found, scalars = gradient_of(parts, precision)
    assert math.isfinite(float(scalars["grad"])) and len(found) == len(exact)
    assert alike(exact, found) > 0.9


def test_frozen_parts_take_the_precision_of_training(parts: Path) -> None:
    trainer = make_sd_trainer("codec", parts, lpips=lpips_loss(), precision="bf16")
    frozen = {p.dtype for p in trainer.module.parameters() if not p.requires_grad}
    assert {p.dtype for p in trainer.parameters} == {torch.float32}
    model: Any = trainer.model
    module: Any = trainer.module
    assert model.vae_decoder.decoder.conv_in.weight.dtype == torch.bfloat16
    assert torch.bfloat16 in frozen and module.lpips.stages[0][0].weight.dtype == torch.bfloat16


def test_the_loss_scale_follows_overflows() -> None:
    scale = LossScale(torch.device("cpu"))
    scale.update(torch.tensor(False))
    assert float(scale.value) == START / 2
    for _ in range(PATIENT):
        scale.update(torch.tensor(True))
    assert float(scale.value) == START
    parameter = torch.nn.Parameter(torch.ones(3))
    scale.up(parameter.sum()).backward()
    scale.down([parameter])
    assert parameter.grad is not None and parameter.grad.tolist() == [1, 1, 1]
    for _ in range(40):
        scale.update(torch.tensor(False))
    assert float(scale.value) == 1


# ---------------------------------------------------------------------------- validation


def test_validation_sees_the_middle_and_tells_levels_and_lpips(parts: Path, tmp_path: Path) -> None:
    module = make_sd_trainer("codec", parts).module
    photos = memory_store([photo(192, 320), photo(256, 192, 1)])
    seen: list[tuple[int, ...]] = []
    reconstruct = module.reconstruct

    def watched(x: Tensor, level: Tensor) -> Any:
        seen.append(tuple(x.shape))
        return reconstruct(x, level)

    module.reconstruct = watched  # type: ignore[method-assign]
    judged = Judgement((0.5, 50.0), 192, by_level=True, perceptual=lpips_loss())
    report = Report(tmp_path, "codec", 1, active=True, judged=judged)
    report.validate(7, module, photos, torch.device("cpu"))
    report.close()
    assert set(seen[1:]) == {(1, 3, 192, 192)}
    row = json.loads((tmp_path / "codec.jsonl").read_text())
    assert len(row["level"]) == 9 and all(len(figures) == 4 for figures in row["level"].values())
    rates = [figures[0] for figures in row["level"].values()]
    assert rates == sorted(rates) and "50.0" not in row["small"]


def test_the_middle_of_a_photograph() -> None:
    picture = np.arange(5 * 8 * 3).reshape(5, 8, 3)
    assert np.array_equal(Judgement(crop=4).middle(picture), picture[0:4, 2:6])
    assert Judgement(crop=64).middle(picture).shape == (5, 8, 3) and Judgement().middle(picture) is picture


def test_too_little_memory_for_validation_ends_no_run(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_sd_trainer("pixel", parts, steps=4, validate_every=2)
    trainer.path = tmp_path / "pixel.safetensors"
    saved: list[int] = []

    def full(*_: Any, **__: Any) -> None:
        saved.append(checkpoints.load(trainer.path).step)
        raise torch.OutOfMemoryError("CUDA out of memory")

    report = Report(tmp_path, "pixel", 4, active=True)
    monkeypatch.setattr(report, "validate", full)
    with caplog.at_level(logging.WARNING):
        trainer.run(report)
    report.close()
    assert trainer.step == 4 and saved[0] == 2, "what was trained is saved before anything can go wrong"
    assert "too little memory for validation, it is left out: give a smaller --validate-crop" in caplog.text


def test_lpips_on_alexnet_is_what_measures() -> None:
    from sprdiff.evaluate.metrics.perceptual import ALEXNET, Lpips

    random = torch.Generator().manual_seed(0)
    backbone = {k: torch.randn(s, generator=random) * 0.05 for k, s in ALEXNET.shapes.items()}
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(ALEXNET.channels)}
    a, b = photo(64, 80, 1), photo(64, 80, 2)
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (a, b))
    found = LpipsLoss(backbone, heads, ALEXNET)(x, y)
    assert float(found) == pytest.approx(Lpips("alex", backbone, heads).distance(a, b), rel=1e-3)


def test_lpips_is_asked_for_before_the_first_stage(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    pack(write_photos(tmp_path / "photos", count=2, size=96), tmp_path / "packed", Packing(min_side=64))
    with pytest.raises(WeightsError, match=r"not found.*--no-lpips"):
        run_stage(
            TrainOptions(
                stage="pixel",
                preset="sd",
                data=[tmp_path / "packed"],
                out=tmp_path / "run",
                steps=1,
                batch=1,
                crop=64,
                device="cpu",
                sd=sd_options(parts, lpips=True),
            )
        )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_workers_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in ((2, 2), (64, 16), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert default_workers() == workers


def test_small_is_the_preset_in_small() -> None:
    assert (SMALL.prediction, SMALL.lambda_range, SMALL.lora_alpha) == (
        SD.prediction,
        SD.lambda_range,
        SD.lora_alpha,
    )
