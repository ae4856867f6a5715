"""Helpers of the tests of training preset `sd`. Run as a script it is the worker of the two-process tests."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

import sprdiff.train.run
from conftest import photo
from sd_helpers import SMALL, small_model, write_base, write_semantic
from sprdiff.evaluate.metrics.perceptual import VGG16
from sprdiff.train import checkpoints
from sprdiff.train.loop import Trainer
from sprdiff.train.options import TrainOptions
from sprdiff.train.run import run_stage
from sprdiff.train.sd.losses import LpipsLoss
from sprdiff.train.sd.options import SDOptions
from sprdiff.train.sd.recipes import SD_STAGES
from sprdiff.train.validation.report import Report
from training_helpers import crop_of, digest, disturb, memory_store, train_options


def made_up_lpips(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return random weights in the shape of VGG16's trunk and of LPIPS's heads."""
    rng = torch.Generator().manual_seed(seed)
    backbone = {
        k: torch.randn(s, generator=rng) * (2 / (s[1] * 9 if len(s) == 4 else 1e4)) ** 0.5
        for k, s in VGG16.shapes.items()
    }
    heads = {
        f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=rng) for i, c in enumerate(VGG16.channels)
    }
    return backbone, heads


def sd_options(folder: Path, **changes: Any) -> SDOptions:
    """Return options for the tiny random folders, which are written if they are missing."""
    if not (folder / "base").exists():
        write_base(folder / "base")
        write_semantic(folder / "semantic")
    options = SDOptions(str(folder / "base"), str(folder / "semantic"), config=SMALL, lpips=False, workers=1)
    return replace(options, **changes)


def make_sd_trainer(
    stage: str,
    folder: Path,
    *,
    photos: int = 1,
    steps: int = 20,
    lr: float = 3e-3,
    lpips: LpipsLoss | None = None,
    **options: Any,
) -> Trainer:
    """Make a trainer on photographs of 64x64, batch 2, from fixed random weights none of which is zero."""
    recipe = replace(SD_STAGES[stage], steps=steps, batch=2, crop=64, lr=lr, ema=0.9)
    model = small_model(folder)
    torch.manual_seed(1)
    if stage != "pixel":
        disturb(model.synthesis, 0.05)
        disturb(model.reconstruction, 0.05)
    extra = {} if stage == "pixel" else {"lpips": lpips}
    module = recipe.build(model, recipe.trains, **extra)
    store = memory_store([photo(64, 64, seed) for seed in range(photos)])
    sd = SDOptions(**{name: options.pop(name) for name in ("shard", "adam8bit") if name in options})
    told = train_options(stage, folder / "run", preset="sd", sd=sd, **options)
    return Trainer(recipe, module, store, store, told, Accelerator(cpu=True))


def lpips_loss() -> LpipsLoss:
    """Return LPIPS on made-up weights."""
    return LpipsLoss(*made_up_lpips())


class RecordingTrainer(Trainer):
    """A trainer that writes what this process trained to ``STAGE.RANK.json``."""

    def run(self, report: Report) -> None:
        before = digest([local(p) for p in self.parameters])
        super().run(report)
        told = {
            "wrapped": type(self.wrapped).__name__,
            "moved": digest([local(p) for p in self.parameters]) != before,
            "held": sum(local(p).numel() for p in self.parameters),
            "weights": digest([local(p) for p in [*self.parameters, *self.ema.averages.values()]]),
            "crops": digest([crop_of(self.sampler.batch(0, self.accelerator.process_index, 2))]),
        }
        name = f"{self.stage.name}.{self.accelerator.process_index}.json"
        (self.options.out / name).write_text(json.dumps(told))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def worker(folder: Path) -> None:
    """Run two steps of every stage on the processes that torchrun started; ``refine`` runs in shards, too,
    and resumed."""
    vars(sprdiff.train.run)["Trainer"] = RecordingTrainer
    ddp, fsdp = folder / "ddp", folder / "fsdp"
    runs = [
        ("pixel", ddp, None, 2),
        ("codec", ddp, "pixel", 2),
        ("refine", ddp, "codec", 2),
        ("refine", ddp, None, 3),
        ("joint", ddp, "codec", 2),
        ("refine", fsdp, "codec", 2),
        ("refine", fsdp, None, 3),
    ]
    for stage, out, earlier, steps in runs:
        options = TrainOptions(
            stage=stage,
            preset="sd",
            data=[folder / "shards"],
            out=out,
            steps=steps,
            batch=1,
            crop=64,
            lr=1e-3,
            device="cpu",
            threads=1,
            precision="fp32",
            init=[ddp / f"{earlier}.safetensors"] if earlier else [],
            resume=steps == 3,
            sd=sd_options(folder, shard=out == fsdp),
        )
        sprdiff.train.run.run_stage(options)
    torch.distributed.destroy_process_group()


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


if __name__ == "__main__":
    os.environ.pop("PYTHONWARNINGS", None)
    logging.disable(logging.WARNING)
    worker(Path(sys.argv[1]))
