"""Tests that a killed run goes on as if nothing had happened, a later leg from committed weights, and several
processes as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import training_helpers
from sprdiff.errors import TrainingError
from sprdiff.models.config import NANO
from sprdiff.train.checkpoints import load, part_of, save, trim
from sprdiff.train.loop import Trainer, schedule
from sprdiff.train.recipes import STAGES
from sprdiff.train.state import load_extras
from training_helpers import CASES, make_trainer, run_case

pytest_plugins = ("training_fixtures",)


class KilledError(Exception):
    """An exception that stands for a kill at the start of a step."""


def kill_at(step: int, patch: pytest.MonkeyPatch) -> None:
    train = Trainer.train_step

    def killed(trainer: Trainer) -> dict[str, Tensor]:
        if trainer.step == step:
            raise KilledError
        return train(trainer)

    patch.setattr(Trainer, "train_step", killed)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_resumes_bit_identically(
    case: str, tmp_path: Path, training_data: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = load_file(run_case(case, training_data, tmp_path / "straight", start))
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(4, patch)
        run_case(case, training_data, tmp_path / "killed", start, save_every=0.0)
    assert load(tmp_path / "killed" / f"{CASES[case].stage}.safetensors").step == 4
    resumed = load_file(run_case(case, training_data, tmp_path / "killed", start, resume=True))
    assert set(resumed) == set(straight)
    different = [k for k in straight if not torch.equal(resumed[k], straight[k])]
    assert not different
    assert any(k.startswith("exp_avg_sq.") for k in straight)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, training_data: Path, start: Path) -> None:
    once = load_file(run_case("codec", training_data, tmp_path, start))
    again = load_file(run_case("codec", training_data, tmp_path, start, resume=True))
    assert all(torch.equal(again[k], v) for k, v in once.items())


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_from_committed_weights_alone(
    case: str, tmp_path: Path, training_data: Path, start: Path
) -> None:
    stage = CASES[case].stage
    small = tmp_path / "small.safetensors"
    trim(run_case(case, training_data, tmp_path / "one", start), small)
    kept = load(small)
    assert kept.networks == STAGES[stage].networks and (kept.step, kept.total) == (6, 6)
    assert {v.dtype for v in kept.tensors.values()} == {torch.float16}
    assert {part_of(k.removeprefix("ema.")) for k in kept.tensors if k.startswith("ema.")} == set(
        kept.networks
    )
    beside = {k.split(".")[1] for k in kept.tensors if not k.startswith("ema.")}
    assert beside == {"codec": {"tell"}, "vae": {"log_beta"}, "flow": set(), "polish": set()}[stage]
    # A rate of zero: what was loaded is what is saved.
    more = run_case(case, training_data, tmp_path / "two", start, init=[start, small], lr=1e-12, steps=7)
    found = load_file(more)
    for name, value in kept.tensors.items():
        if (
            part_of(name.removeprefix("ema.")) != "latent_" and name != "extra.log_beta"
        ):  # measured, controlled
            assert torch.allclose(found[name], value.float(), atol=1e-6), name
    assert load(more).step == 7


def test_a_later_leg_keeps_step_and_schedule(
    tmp_path: Path, training_data: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All legs have one schedule: it warms up in each, and falls at the end of the last."""
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        kill_at(5, patch)
        run_case("codec", training_data, tmp_path / "one", start, save_every=0.0, steps=12)
    small = tmp_path / "small.safetensors"
    trim(tmp_path / "one" / "codec.safetensors", small)
    assert (load(small).step, load(small).total) == (5, 12)
    rates: list[tuple[int, float]] = []
    train = Trainer.train_step

    def watched(trainer: Trainer) -> dict[str, Tensor]:
        scalars = train(trainer)
        rates.append((trainer.step - 1, trainer.optimizer.param_groups[0]["lr"] / trainer.stage.lr))
        return scalars

    monkeypatch.setattr(Trainer, "train_step", watched)
    end = load(run_case("codec", training_data, tmp_path / "two", start, init=[start, small], steps=None))
    assert (end.step, end.total, end.first) == (12, 12, 5)
    assert [step for step, _ in rates] == list(range(5, 12))
    assert [rate for _, rate in rates] == pytest.approx(
        [schedule(step / 12, step - 5) for step in range(5, 12)]
    )


def test_a_finished_stage_is_not_gone_on_with_unasked(
    tmp_path: Path, training_data: Path, start: Path
) -> None:
    done = run_case("codec", training_data, tmp_path / "one", start)
    with pytest.raises(TrainingError, match="over at step 6 of 6: give --steps"):
        run_case("codec", training_data, tmp_path / "two", start, init=[start, done], steps=None)


def test_few_steps_go_on_from_a_flow_that_never_had_them(
    tmp_path: Path, training_data: Path, start: Path
) -> None:
    flow = run_case("flow", training_data, tmp_path / "one", start)
    few = load(run_case("flow-few", training_data, tmp_path / "few", start, init=[start, flow], steps=8))
    assert (few.step, few.first) == (8, 6) and any(k.startswith("extra.slow.") for k in few.tensors)


def test_schedule_warms_up_holds_and_decays() -> None:
    factors = [schedule(step / 1000, step) for step in range(1000)]
    assert factors[0] == 0.01 and factors[99] == 1 and factors[500] == 1
    assert factors[850] == pytest.approx(0.5) and 0 < factors[-1] < 0.01
    assert schedule(0.5, 0) == 0.01 and schedule(1.2, 500) == 0


def test_resume_without_a_checkpoint_still_needs_what_the_stage_needs(
    tmp_path: Path, training_data: Path
) -> None:
    with pytest.raises(TrainingError, match="give --init"):
        run_case("flow", training_data, tmp_path, Path(), init=[], resume=True)


def test_resume_refuses_another_stage_or_size(tmp_path: Path, latents: Path, start: Path) -> None:
    trainer = make_trainer("codec", tmp_path, latents)
    for other in (load(start), replace(load(start), stage="codec", config=replace(NANO, hyper_hidden=1))):
        save(trainer.path, other)
        with pytest.raises(TrainingError, match="another configuration"):
            trainer.resume()
    save(trainer.path, replace(load(start), stage="codec"))
    with pytest.raises(TrainingError, match=r"no fitting tell|cannot be resumed"):
        trainer.resume()


@pytest.mark.parametrize(("case", "lacks"), [("codec-all", "tell"), ("vae", "log_beta")])
def test_extras_must_fit(case: str, lacks: str, tmp_path: Path, latents: Path, start: Path) -> None:
    trainer = make_trainer(case, tmp_path, latents)
    with pytest.raises(TrainingError, match=f"no fitting {lacks}"):
        load_extras(trainer.module, load(start))


# ---------------------------------------------------------------------------- several processes


def test_two_processes_train_as_one(tmp_path: Path, training_data: Path) -> None:
    for name in ("photos", "latents", "start.safetensors"):
        (tmp_path / name).symlink_to(training_data / name)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    paths = [str(Path(p)) for p in sys.path if p]
    done = subprocess.run(
        [*command, training_helpers.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-10000:]
    for case, chosen in CASES.items():
        told = [json.loads((tmp_path / case / f"{chosen.stage}.{rank}.json").read_text()) for rank in (0, 1)]
        for rank in told:
            assert (rank["processes"], rank["wrapped"]) == (2, "DistributedDataParallel") and rank["moved"]
        assert told[0]["weights"] == told[1]["weights"], f"{case}: the processes trained different weights"
        assert told[0]["crops"] != told[1]["crops"], f"{case}: the processes see the same crops"
        assert load(tmp_path / case / f"{chosen.stage}.safetensors").step == 2


def test_several_processes_have_no_clock_in_common(
    tmp_path: Path, training_data: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(TrainingError, match="would not stop at the same step"):
        run_case("codec", training_data, tmp_path, start, minutes=1.0)
