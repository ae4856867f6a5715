"""Tests of the training loop: precision, values that are not finite, legs by the clock, no hidden waiting,
compilation, averages."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sprdiff.train.loop
from sprdiff.errors import TrainingError
from sprdiff.models.integer_networks import forbid_tf32
from sprdiff.train import checkpoints
from sprdiff.train.ema import ModelEMA
from sprdiff.train.loop import Trainer
from sprdiff.train.options import TrainOptions
from sprdiff.train.run import run_stage
from sprdiff.train.validation.report import Report
from training_helpers import CASES, make_trainer, run_case

pytest_plugins = ("training_fixtures",)

# ---------------------------------------------------------------------------- precision


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
@pytest.mark.parametrize("case", ["codec-all", "vae", "flow-few"])
def test_auto_takes_the_faster_precision_and_leaves_no_trace(
    case: str,
    faster: str,
    tmp_path: Path,
    training_data: Path,
    start: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Weights, controllers, slow averages and random numbers are those of a run that was told its
    precision."""
    told = load_file(run_case(case, training_data, tmp_path / "told", start, steps=3, precision=faster))
    measure = Trainer._seconds

    def staged(trainer: Trainer, precision: str) -> float:
        assert measure(trainer, precision) > 0
        return 1.0 if precision == faster else 2.0

    monkeypatch.setattr(Trainer, "_seconds", staged)
    with caplog.at_level(logging.WARNING):
        found = load_file(run_case(case, training_data, tmp_path / "auto", start, steps=3, precision="auto"))
    assert f"training in {faster}" in caplog.text
    assert set(found) == set(told) and all(torch.equal(found[k], told[k]) for k in told)


def test_random_numbers_are_as_they_were_before_the_choice(tmp_path: Path, latents: Path) -> None:
    trainer = make_trainer("vae", tmp_path, latents, precision="auto")
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    trainer.choose_precision()
    assert torch.equal(torch.rand(3), wanted) and trainer.precision in ("fp32", "bf16")


def test_half_precision_changes_the_networks_and_not_the_stored_weights(
    tmp_path: Path, latents: Path
) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        trainer = make_trainer("vae", tmp_path, latents, precision=precision)
        losses[precision] = float(trainer.train_step()["loss"].detach())
        assert {p.dtype for p in trainer.module.parameters()} == {torch.float32}
    assert losses["fp32"] != losses["bf16"] and losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


# ---------------------------------------------------------------------------- numbers that are none


def poison(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = trainer.module.forward

    def broken(x: Tensor, level: Tensor) -> dict[str, Tensor]:
        scalars = forward(x, level)
        return {**scalars, "loss": scalars["loss"] * float("nan")}

    monkeypatch.setattr(trainer.module, "forward", broken)


@pytest.mark.parametrize("case", CASES)
def test_a_step_without_a_finite_gradient_is_skipped(
    case: str,
    tmp_path: Path,
    latents: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = make_trainer(case, tmp_path, latents)
    with monkeypatch.context() as patch:
        poison(trainer, patch)
        before = [p.detach().clone() for p in trainer.parameters]
        trainer.train_step()
    # The weights decay as in every step, and nothing else happens to them.
    assert all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in zip(before, trainer.parameters, strict=True)
    )
    trainer.train_step()
    trainer._check_finite()
    assert "up to step 2: the gradient of 1 steps was not finite" in caplog.text
    caplog.clear()
    trainer._check_finite()
    assert not caplog.text, "told twice"
    assert checkpoints.all_finite({str(i): v for i, v in enumerate(trainer.ema.averages.values())})
    assert checkpoints.all_finite(trainer.module.state_dict())
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True)), (
        "it does not go on"
    )


def test_a_run_that_diverged_ends_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprdiff.train.loop, "SYNCHRONISE", 4)
    monkeypatch.setattr(sprdiff.train.loop, "PATIENCE", 4)
    trainer = make_trainer("vae", tmp_path, latents, save_every=0.0)
    report = Report(tmp_path, "vae", 30, active=False)
    train = trainer.train_step

    def soon_broken() -> dict[str, Tensor]:
        if trainer.step == 4:
            poison(trainer, monkeypatch)
        return train()

    monkeypatch.setattr(trainer, "train_step", soon_broken)
    with pytest.raises(
        TrainingError, match=r"no gradient was finite in 4 steps up to step 8; .*vae\.safetensors is the"
    ):
        trainer.run(report)
    kept = checkpoints.load(trainer.path)
    assert kept.step == 4 and checkpoints.all_finite(kept.tensors)


# ---------------------------------------------------------------------------- legs by the clock


class Clock:
    """A clock that moves a second with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("decay", [False, True])
def test_a_leg_lasts_its_minutes_and_falls_only_if_told(
    decay: bool, tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprdiff.train.loop, "WARMUP", 1)
    monkeypatch.setattr("sprdiff.train.loop.time.monotonic", Clock())
    trainer = make_trainer("flow", tmp_path, latents, minutes=0.5, decay=decay, save_every=1e9)
    rates: list[float] = []
    train = trainer.train_step

    def watched() -> dict[str, Tensor]:
        scalars = train()
        rates.append(trainer.optimizer.param_groups[0]["lr"] / trainer.stage.lr)
        return scalars

    monkeypatch.setattr(trainer, "train_step", watched)
    trainer.run(Report(tmp_path, "flow", 1, active=False))
    assert 5 < len(rates) < 30 and trainer.step == len(rates)
    assert rates[:3] == [1.0] * 3
    if decay:
        assert rates == sorted(rates, reverse=True) and rates[-1] < 0.4
    else:
        assert set(rates) == {1.0}
    assert checkpoints.load(trainer.path).step == len(rates)


def test_a_leg_is_saved_before_it_is_validated(
    tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer("flow", tmp_path, latents, steps=2, save_every=1e9)

    def fails(report: Report) -> None:
        raise TrainingError("the metric broke")

    monkeypatch.setattr(trainer, "validate", fails)
    with pytest.raises(TrainingError, match="broke"):
        trainer.run(Report(tmp_path, "flow", 2, active=False))
    assert checkpoints.load(trainer.path).step == 2


# ---------------------------------------------------------------------------- nothing waits for the device


class Watched(TorchDispatchMode):
    """A mode that counts what would make the host wait for a GPU: numbers read from tensors, and tensors made
    of numbers."""

    WAITS = (
        "aten._local_scalar_dense",
        "aten.nonzero",
        "aten.masked_select",
        "aten.equal",
        "aten.lift_fresh",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rsplit(".", 1)[0]
        if name in self.WAITS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_the_device(case: str, tmp_path: Path, latents: Path) -> None:
    trainer = make_trainer(case, tmp_path, latents)
    x = trainer.sampler.batch(0, 0, 2)
    # In this test crops are cut on the host.
    trainer.sampler.batch = lambda *_: x  # type: ignore[method-assign, assignment]
    report = Report(tmp_path, "x", 1000, active=False)
    trainer.train_step()
    with Watched() as watched:
        report.step(1, trainer.gradients(1), 1.0)
        trainer.ema.update(1)
    # Where features look at the picture from is drawn on the host.
    assert watched.found == ({"aten._local_scalar_dense": 2} if case in ("vae", "polish") else {})


def test_the_watch_is_not_blind() -> None:
    with Watched() as watched:
        float(torch.ones(3).sum())
        torch.tensor([1.0, 2.0])
    assert watched.found["aten._local_scalar_dense"] == 1 and watched.found["aten.lift_fresh"] == 1


# ---------------------------------------------------------------------------- compilation


@pytest.mark.filterwarnings("ignore")  # the compiler warns of what it does itself
@pytest.mark.parametrize("case", ["codec", "flow-few"])
def test_a_compiled_stage_is_compiled_once(
    case: str, tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step number inside would compile every step anew, which on a GPU would take the whole run."""
    torch.compiler.reset()
    plain = make_trainer(case, tmp_path, latents)
    wanted = [float(plain.train_step()["loss"].detach()) for _ in range(4)]
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    trainer = make_trainer(case, tmp_path, latents, compile=True)
    found = [float(trainer.train_step()["loss"].detach()) for _ in range(2)]
    with torch.compiler.set_stance("fail_on_recompile"):
        found += [float(trainer.train_step()["loss"].detach()) for _ in range(2)]
    torch.compiler.reset()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_compiled_code_never_meets_tf32(
    tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: module)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    make_trainer("codec", tmp_path, latents, compile=True)
    assert not torch.backends.cudnn.allow_tf32
    forbid_tf32()


# ---------------------------------------------------------------------------- averages


def test_averages_are_swapped_in_and_out(tmp_path: Path, latents: Path) -> None:
    trainer = make_trainer("codec", tmp_path, latents)
    for _ in range(3):
        trainer.train_step()
    averages = list(trainer.ema.averages.values())
    now, average = trainer.parameters[0].detach().clone(), averages[0].clone()
    assert not torch.equal(now, average)
    with trainer.ema:
        assert torch.equal(trainer.parameters[0], average)
    assert torch.equal(trainer.parameters[0], now) and torch.equal(averages[0], average)


def test_averages_come_back_after_an_error() -> None:
    module = torch.nn.ParameterDict({"p": torch.zeros(2)})
    parameter, average = module["p"], ModelEMA(module, 0.9)
    with torch.no_grad():
        parameter.fill_(1.0)
    with pytest.raises(KeyError), average:
        assert parameter.tolist() == [0.0, 0.0]
        raise KeyError
    assert parameter.tolist() == [1.0, 1.0]


def test_early_averages_forget_faster() -> None:
    module = torch.nn.ParameterDict({"p": torch.zeros(1)})
    parameter, average = module["p"], ModelEMA(module, 0.99)
    with torch.no_grad():
        parameter.fill_(1.0)
    average.update(0)
    assert float(average.averages["p"]) == pytest.approx(0.9)
    late = ModelEMA(torch.nn.ParameterDict({"p": torch.ones(1)}), 0.99)
    late.averages["p"].zero_()
    late.update(10**6)
    assert float(late.averages["p"]) == pytest.approx(0.01)


# ---------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "paint"}, "no stage 'paint'; there are codec, vae, flow"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"crop": 100}, "multiple of 64"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"precision": "fp8"}, "must be one of auto, fp32, tf32, fp16, bf16, not 'fp8'"),
        ({"stage": "flow", "data": ["latents"]}, "starts from trained .*flow|starts from trained latent"),
        ({"stage": "vae", "init": ["start.safetensors"]}, "not a complete folder of latents"),
        (
            {"stage": "vae", "data": ["latents"] * 2, "init": ["start.safetensors"]},
            "one folder of latents .*give --data",
        ),
        ({"data": []}, "no photographs"),
        ({"crop": 128}, "both sides of at least 128"),
        ({"init": [Path("nowhere.safetensors")]}, "nowhere.safetensors cannot be read: no such file$"),
        ({"settings": {"colour": 3}}, "no setting 'colour'"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str, tmp_path: Path, training_data: Path) -> None:
    options = {"stage": "codec", "preset": "nano", "data": ["photos"], "crop": 64, "device": "cpu", **changes}
    for name in ("data", "init"):
        options[name] = [training_data / given for given in options.get(name, [])]
    with pytest.raises(TrainingError, match=message):
        run_stage(TrainOptions(out=tmp_path / "out", **options))
