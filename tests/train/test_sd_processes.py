"""Preset `sd` on several processes, with copies and with shards of the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sd_training_helpers
from sd_training_helpers import run_sd_stage, sd_options
from sprdiff.errors import TrainingError
from sprdiff.train import checkpoints
from sprdiff.train.sd.recipes import SD_STAGES

pytest_plugins = ("sd_training_fixtures",)

STAGES = tuple(SD_STAGES)


def test_two_processes_with_copies_and_with_shards_of_the_model(tmp_path: Path, sd_shards: Path) -> None:
    sd_options(tmp_path)
    (tmp_path / "shards").symlink_to(sd_shards)
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


def test_one_process_cannot_be_sharded(tmp_path: Path, sd_parts: Path, sd_shards: Path) -> None:
    with pytest.raises(TrainingError, match="torchrun"):
        run_sd_stage("pixel", tmp_path, sd_parts, sd_shards, shard=True)
