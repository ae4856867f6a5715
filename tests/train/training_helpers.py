"""Helpers of the tests of training: made-up photographs, latents of a random codec, `nano` models and
trainers.

Run as a script it is the worker of the two-process test: every case by ``run_stage``, with the figures of
each rank in a JSON file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

import sprdiff.train.run
from conftest import photo
from sprdiff.models.config import NANO
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.train.batches import Store
from sprdiff.train.checkpoints import PARTS, Checkpoint, save
from sprdiff.train.data.photos import PhotoStore
from sprdiff.train.latents.making import encode_latents, make_latents
from sprdiff.train.latents.store import SIDE, LatentStore
from sprdiff.train.loop import Trainer
from sprdiff.train.options import TrainOptions
from sprdiff.train.recipes import STAGES
from sprdiff.train.validation.report import Report


@dataclass(frozen=True)
class Case:
    """A stage with settings, and the share of its first loss that 30 steps on one photograph may leave."""

    stage: str
    left: float
    settings: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "codec": Case("codec", 0.94),
    "codec-all": Case("codec", 0.92, {"structure": 0.008, "semantic": 0.1, "branches": ["vae", "semantic"]}),
    "codec-relative": Case("codec", 0.97, {"structure": 0.004, "relative": 0.01}),
    "vae": Case("vae", 0.9),
    "flow": Case("flow", 0.9),
    "flow-few": Case("flow", 0.95, {"few": 0.5}),
    "polish": Case("polish", 0.97, {"evaluations": 2}),
}
"""Every stage, and those of its settings that change what it trains."""


SMALL_RUN = ("--batch", "2", "--crop", "64", "--device", "cpu", "--threads", "1")
"""Options of training that a script hands on, for steps of a second."""


def with_command(folder: Path, program: str, **variables: str) -> dict[str, str]:
    """Return the environment of a script that finds a command ``sprdiff``, which runs a program in Python."""
    command = folder / "bin" / "sprdiff"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {program} "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join((str(command.parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **variables}


def nano_model(seed: int = 0, *, double: bool = False) -> SPRDiff:
    """Return a random `nano` model in which no path is switched off by a zero."""
    torch.manual_seed(seed)
    model = SPRDiff(NANO).eval()
    disturb(model)
    return model.double() if double else model


@torch.no_grad()
def disturb(module: nn.Module, scale: float = 0.1) -> None:
    """Add noise to every weight, so that nothing stays at its initial zero."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=scale)


def write_photos(folder: Path, count: int = 2, size: int = 64) -> Path:
    """Write square photographs ``made-0.png`` ... into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(photo(size, size, seed=i)).save(folder / f"made-{i}.png")
    return folder


def memory_store(photos: Sequence[np.ndarray]) -> PhotoStore:
    """Return photographs uint8 [h, w, 3] as a store, without files."""
    sizes = [p.size for p in photos]
    return PhotoStore(
        np.concatenate([p.ravel() for p in photos]),
        np.cumsum([0, *sizes[:-1]]),
        np.array([p.shape[:2] for p in photos]),
        tuple(f"made-{i}" for i in range(len(photos))),
    )


def write_latents(folder: Path, count: int = 4) -> Path:
    """Write a folder of latents that an untrained codec and an untrained VAE make of one made-up
    photograph."""
    torch.manual_seed(3)
    model = SPRDiff(NANO).eval()

    def codec(x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r = model(x, level, hard=True).reconstruction
        return r.coarse, r.f16, r.f32

    for _ in make_latents(codec, memory_store([photo(SIDE, SIDE)]), folder, count, 0, "cpu"):
        pass
    for _ in encode_latents(model, folder, "cpu"):
        pass
    return folder


def write_checkpoint(path: Path, model: SPRDiff, networks: tuple[str, ...] = PARTS) -> Path:
    """Write a checkpoint of EMA weights only, as if earlier stages had made it."""
    ema = {f"ema.{k}": v for k, v in model.state_dict().items()}
    save(path, Checkpoint("made", 0, model.config, networks, ema))
    return path


def make_trainer(
    case: str, out: Path, latents: Path, *, steps: int = 30, lr: float = 3e-3, crop: int = 64, **options: Any
) -> Trainer:
    """Make a trainer on one photograph of 64x64 or on latents, batch 2, from fixed random weights."""
    chosen = CASES[case]
    recipe = replace(STAGES[chosen.stage], steps=steps, batch=2, crop=crop, lr=lr, ema=0.9)
    torch.manual_seed(0)
    model = SPRDiff(NANO)
    assert model.triple_encoder.semantic is not None
    model.triple_encoder.semantic.load_package()
    module = recipe.build(model, recipe.trains, **chosen.settings)
    store: Store = (
        LatentStore.open(latents, recipe.latents) if recipe.latents else memory_store([photo(64, 64)])
    )
    return Trainer(
        recipe, module, store, None, train_options(recipe.name, out, **options), Accelerator(cpu=True)
    )


def train_options(stage: str, out: Path, **changes: Any) -> TrainOptions:
    """Return options of a trainer, in float32 unless the changes say otherwise."""
    return TrainOptions(stage=stage, out=out, **{"precision": "fp32", **changes})


def run_case(case: str, data: Path, out: Path, start: Path, **changes: Any) -> Path:
    """Run six steps of a case by the public entry, on ``data/photos`` or ``data/latents``; return its
    checkpoint."""
    chosen = CASES[case]
    source = data / ("latents" if STAGES[chosen.stage].latents else "photos")
    options = {
        "steps": 6,
        "batch": 2,
        "crop": 64,
        "init": [start],
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "settings": chosen.settings,
        **changes,
    }
    run_stage = sprdiff.train.run.run_stage
    run_stage(TrainOptions(stage=chosen.stage, preset="nano", data=[source], out=out, **options))
    return out / f"{chosen.stage}.safetensors"


def digest(tensors: Sequence[Tensor]) -> str:
    """Return a name for the exact values of tensors."""
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(tensor.detach().contiguous().numpy().tobytes())
    return content.hexdigest()


class RecordingTrainer(Trainer):
    """A trainer that writes what this process trained to ``STAGE.RANK.json``."""

    def run(self, report: Report) -> None:
        before = digest(self.parameters)
        super().run(report)
        buffers = [b for n, b in self.module.named_buffers() if "_mean" in n or "_std" in n]
        rank = self.accelerator.process_index
        told: dict[str, Any] = {
            "processes": self.accelerator.num_processes,
            "wrapped": type(self.wrapped).__name__,
            "moved": digest(self.parameters) != before,
            "weights": digest([*self.parameters, *self.ema.averages.values(), *buffers]),
            "crops": digest([crop_of(self.sampler.batch(0, rank, 2))]),
        }
        (self.options.out / f"{self.stage.name}.{rank}.json").write_text(json.dumps(told))


def crop_of(batch: Tensor | dict[str, Tensor]) -> Tensor:
    """Return the pictures of a batch of any stage."""
    return batch if isinstance(batch, Tensor) else batch["coarse"]


def worker(folder: Path) -> None:
    """Run two steps of every case, on whatever processes torchrun has started."""
    vars(sprdiff.train.run)["Trainer"] = RecordingTrainer
    for case in CASES:
        run_case(case, folder, folder / case, folder / "start.safetensors", steps=2, precision="auto")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ.pop("PYTHONWARNINGS", None)
    worker(Path(sys.argv[1]))
