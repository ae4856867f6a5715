"""What the tests of training share: made-up photographs, a made-up teacher, `nano` models and trainers.

Run as a script it is the worker of the two-process test: every stage by ``run_stage``, with the figures of each
rank in a JSON file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
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
from sprdiff.train.checkpoints import PARTS, Checkpoint, save
from sprdiff.train.data.photos import PhotoStore
from sprdiff.train.loop import Options, Trainer
from sprdiff.train.recipes import STAGES
from sprdiff.train.report import Report

TEACHER_CHANNELS = (16, 32, 16, 128, 16, 128, 32, 256, 32, 256, 64, 512, 64, 512, 128)
"""Output channels of Tiny Darknet's convolutions; those of 16, 64 and 128 after the first two are 1x1."""


def nano_model(seed: int = 0, *, double: bool = False) -> SPRDiff:
    """A random `nano` model none of whose paths is switched off by a zero."""
    torch.manual_seed(seed)
    model = SPRDiff(NANO).eval()
    disturb(model)
    return model.double() if double else model


@torch.no_grad()
def disturb(module: nn.Module, scale: float = 0.1) -> None:
    """Add noise to every weight: nothing stays at its initial zero."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=scale)


def write_photos(folder: Path, count: int = 2, size: int = 64) -> Path:
    """Square photographs ``made-0.png`` ... in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(photo(size, size, seed=i)).save(folder / f"made-{i}.png")
    return folder


def memory_store(photos: Sequence[np.ndarray]) -> PhotoStore:
    """Photographs uint8 [h, w, 3] as a store, without files."""
    sizes = [p.size for p in photos]
    return PhotoStore(
        np.concatenate([p.ravel() for p in photos]),
        np.cumsum([0, *sizes[:-1]]),
        np.array([p.shape[:2] for p in photos]),
        tuple(f"made-{i}" for i in range(len(photos))),
    )


def write_teacher(path: Path, seed: int = 0) -> Path:
    """Random weights in the shape of Tiny Darknet, scaled to keep the variance."""
    rng = np.random.default_rng(seed)
    arrays, cin = {}, 3
    for i, cout in enumerate(TEACHER_CHANNELS, 1):
        kernel = 1 if i > 2 and cout < TEACHER_CHANNELS[i - 2] else 3
        scale = np.sqrt(2 / (cin * kernel * kernel))
        arrays[f"conv{i}.weight"] = rng.normal(0, scale, (cout, cin, kernel, kernel)).astype(np.float32)
        arrays[f"conv{i}.bias"] = np.zeros(cout, np.float32)
        cin = cout
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def write_checkpoint(path: Path, model: SPRDiff, networks: tuple[str, ...] = PARTS) -> Path:
    """A checkpoint of EMA weights only, as if earlier stages had made it."""
    ema = {f"ema.{k}": v for k, v in model.state_dict().items()}
    save(path, Checkpoint("vae", 0, model.config, networks, ema))
    return path


def make_trainer(stage: str, out: Path, teacher: Path, *, steps: int = 30, lr: float = 3e-3) -> Trainer:
    """A trainer on one photo of 64x64, batch 2, from fixed random weights."""
    recipe = replace(STAGES[stage], steps=steps, batch=2, crop=64, lr=lr, ema=0.9)
    torch.manual_seed(0)
    model = SPRDiff(NANO)
    extra = {"teacher": teacher} if recipe.teacher else {}
    module = recipe.build(model, recipe.trains, **extra)
    store = memory_store([photo(64, 64)])
    return Trainer(recipe, module, store, store, Options(out), Accelerator(cpu=True))


def digest(tensors: Sequence[Tensor]) -> str:
    """Names the exact values of tensors."""
    content = hashlib.sha256()
    for tensor in tensors:
        content.update(tensor.detach().contiguous().numpy().tobytes())
    return content.hexdigest()


class RecordingTrainer(Trainer):
    """Writes what this process trained to ``STAGE.RANK.json``."""

    def run(self, report: Report) -> None:
        before = digest(self.parameters)
        super().run(report)
        buffers = [b for n, b in self.module.named_buffers() if "_mean" in n or "_std" in n]
        told: dict[str, Any] = {
            "processes": self.accelerator.num_processes,
            "wrapped": type(self.wrapped).__name__,
            "moved": digest(self.parameters) != before,
            "weights": digest([*self.parameters, *self.ema, *buffers]),
            "crops": digest([self.sampler.batch(0, self.accelerator.process_index, 2)]),
        }
        name = f"{self.stage.name}.{self.accelerator.process_index}.json"
        (self.options.out / name).write_text(json.dumps(told))


def worker(folder: Path) -> None:
    """Two steps of every stage, on whatever processes torchrun has started."""
    vars(sprdiff.train.run)["Trainer"] = RecordingTrainer
    for stage in STAGES:
        sprdiff.train.run.run_stage(
            stage, preset="nano", data=[folder / "photos"], out=folder / "run", init=[folder / "start.safetensors"],
            teacher=folder / "teacher.npz", steps=2, batch=2, crop=64, device="cpu", threads=1,
        )  # fmt: skip
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ.pop("PYTHONWARNINGS", None)
    worker(Path(sys.argv[1]))
