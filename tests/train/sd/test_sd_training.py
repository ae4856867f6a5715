"""Tests of training preset `sd` on tiny random parts: every stage learns, and checkpoints are small, strict
and never half."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from conftest import photo
from sd_helpers import small_model
from sd_training_helpers import lpips_loss, made_up_lpips, make_sd_trainer
from sprdiff.errors import WeightsError
from sprdiff.evaluate.metrics.perceptual import Lpips
from sprdiff.sd.model import is_trained
from sprdiff.train import checkpoints
from sprdiff.train.data.photos import CropSampler
from sprdiff.train.loop import Trainer
from sprdiff.train.sd.losses import feature_distance, quarters
from sprdiff.train.sd.options import SDOptions
from sprdiff.train.sd.recipes import SD_STAGES
from sprdiff.train.sd.setup import load_lpips
from sprdiff.train.sd.stages import SDAdversarialStage
from training_helpers import memory_store, train_options

pytest_plugins = ("sd_training_fixtures",)


STAGES = tuple(SD_STAGES)
GAIN = {"pixel": 0.8, "codec": 0.85, "refine": 0.88, "joint": 0.8}
"""The largest share of its first loss that each stage may leave after its steps on one photograph: about .75,
.82, .83 and .75 are left."""


def fixed_loss(trainer: Trainer) -> float:
    """Return the codec's own loss on a batch, at levels and with noise that are always the same.

    The discriminator's own loss is left out, because it falls whether the codec learns or not. So is the
    adversarial term, which rises while the discriminator learns: its weight is zero at the first step.
    """
    adversarial = isinstance(trainer.module, SDAdversarialStage)
    trainer.module.begin(trainer.stage.steps, 0.0 if adversarial else 1.0)
    x = trainer.sampler.batch(0, 0, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        scalars = trainer.module(x, torch.tensor([60.0, 200.0]))
    return float(scalars["loss"] - scalars.get("discriminator", 0))


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
        heard.append(refine.adversarial_share())
    assert rates == pytest.approx([0.25, 0.625, 1, 1]) and heard == [0, 1, 1, 1]
    refine.begin(7, 0.07)
    assert refine.adversarial_share() == pytest.approx(0.5)


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
