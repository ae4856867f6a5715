"""Measures preset `sd` on a GPU: exactness, precision, speed and memory, in one report. ``scripts/gpu_run.sh
--sd`` runs it.

    python scripts/gpu_sd.py OUT [--small] [--device auto] [--steps 10] [--batch 4] [--crop 512]

Networks have random weights of full size, for what they cost and how they round does not depend on training.
With ``--small`` they are small enough for a CPU, on which the script is rehearsed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from sprdiff.evaluate.metrics.perceptual import VGG16
from sprdiff.format.entropy import EntropyModel
from sprdiff.models.stored import entropy_arrays
from sprdiff.sd.config import PRECISIONS, SD, SMALL, SDConfig
from sprdiff.sd.model import SDSPRDiff
from sprdiff.sd.precision import dtype_of, products
from sprdiff.train.data.photos import PhotoStore
from sprdiff.train.loop import Trainer
from sprdiff.train.options import TrainOptions
from sprdiff.train.precision import networks
from sprdiff.train.sd.losses import LpipsLoss
from sprdiff.train.sd.recipes import SD_STAGES

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
full: Any = importlib.import_module("sd")
"""The module ``benchmarks/sd.py``."""
UNIT = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Check:
    """What is run, and on which device."""

    device: torch.device
    small: bool
    steps: int
    batch: int
    crop: int
    out: Path

    def model(self, seed: int = 0) -> SDSPRDiff:
        """Return a random model in which no trained weight is zero."""
        torch.manual_seed(seed)
        model = full.small_size(SMALL) if self.small else full.full_size("cpu")
        with torch.no_grad():
            for name, value in model.trained_state().items():
                if not name.endswith(("log_gain", "z_mean", "z_index")):
                    value.add_(torch.randn_like(value), alpha=0.01)
        return model

    @property
    def config(self) -> SDConfig:
        return SMALL if self.small else SD


def exactness(check: Check) -> dict[str, float]:
    """Return the share of ŷ in which the device's integer networks and numpy agree, with TF32 on and off."""
    model = check.model()
    codec = model.latent_codec
    entropy = EntropyModel(entropy_arrays(codec))
    random = torch.Generator().manual_seed(0)
    y = 3 * torch.randn(1, check.config.y_channels, 8, 12, generator=random)
    z = torch.randn(1, check.config.z_channels, 2, 3, generator=random)
    exact = entropy.encode(y[0].numpy(), z[0].numpy(), 128)
    wanted = entropy.dequantise(exact.y_hat, 128)
    found = {}
    codec.to(check.device)
    for precision in ("fp32", "tf32"):
        with products(precision), torch.no_grad():
            level = torch.tensor([128.0], device=check.device)
            q = codec(y.to(check.device), z.to(check.device), level, hard=True)
        # Gains are 16-bit fractions there and floats here: a latent at the edge of its bin may fall on either
        # side.
        found[precision] = float((np.abs(q.y_hat[0].cpu().numpy() - wanted) < 1e-3).mean())
    return found


@torch.no_grad()
def precision_errors(check: Check) -> dict[str, float]:
    """Return the root mean square difference of the clean latent from that in fp32, by precision."""
    x = torch.rand(1, 3, check.crop, check.crop, generator=torch.Generator().manual_seed(0)).to(check.device)
    level = torch.tensor([128.0], device=check.device)
    model = check.model().to(check.device).eval()
    with products("fp32"):
        received = model(x, level, hard=True).reconstruction
    found: dict[str, Tensor] = {}
    for precision in PRECISIONS:
        model.keep_frozen_in(dtype_of(precision))
        with networks(precision, check.device):
            found[precision] = model.denoise_once(received).float()
        if UNIT[precision] == 2:  # rounded weights do not come back
            model = check.model().to(check.device).eval()
    exact = found["fp32"]
    return {name: float((z0 - exact).square().mean().sqrt()) for name, z0 in found.items()}


def photographs(check: Check) -> PhotoStore:
    """Return noise in place of photographs, because the cost of decoding them is not measured here."""
    side, count = check.crop + 64, 2
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, count * side * side * 3, np.uint8)
    offsets = np.arange(count) * side * side * 3
    return PhotoStore(pixels, offsets, np.full((count, 2), side), tuple(map(str, range(count))))


def random_lpips() -> LpipsLoss:
    """Return LPIPS with random weights, which costs what the published one costs."""
    random = torch.Generator().manual_seed(0)
    backbone = {k: 0.05 * torch.randn(s, generator=random) for k, s in VGG16.shapes.items()}
    return LpipsLoss(
        backbone, {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(VGG16.channels)}
    )


def timed_steps(check: Check, stage: str, precision: str) -> dict[str, float]:
    """Measure the seconds of a step and the peak memory in GiB, after two steps to warm up."""
    recipe = replace(SD_STAGES[stage], batch=check.batch, crop=check.crop, steps=check.steps + 2)
    model = check.model()
    model.gradient_checkpointing()
    extra = {} if stage == "pixel" else {"lpips": random_lpips()}
    module = recipe.build(model, recipe.trains, **extra)
    store = photographs(check)
    options = TrainOptions(stage=stage, out=check.out, preset="sd", precision=precision)
    trainer = Trainer(recipe, module, store, None, options, Accelerator(cpu=check.device.type == "cpu"))
    full.reset(check.device)
    for number in range(check.steps + 2):
        if number == 2:
            wait(check.device)
            began = time.perf_counter()
        trainer.train_step()
    wait(check.device)
    seconds = (time.perf_counter() - began) / check.steps
    return {
        "seconds a step": seconds,
        "peak GiB": full.peak(check.device),
        "steps skipped": float(trainer.skipped),
    }


def wait(device: torch.device) -> None:
    """Wait until the device has computed what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(check: Check, precisions: Sequence[str]) -> dict[str, Any]:
    """Print every figure; a part that fails says so, and the others go on."""
    parts: dict[str, Callable[[], Any]] = {
        "exactness": lambda: exactness(check),
        "precision, rms error of z0": lambda: precision_errors(check),
    }
    for stage in SD_STAGES:
        for precision in precisions if stage == "codec" else precisions[:1]:
            parts[f"{stage}, {precision}"] = functools.partial(timed_steps, check, stage, precision)
    where = torch.cuda.get_device_name(check.device) if check.device.type == "cuda" else "CPU"
    found: dict[str, Any] = {
        "device": where,
        "torch": torch.__version__,
        "batch": check.batch,
        "crop": check.crop,
    }
    for name, run in parts.items():
        try:
            found[name] = {key: float(f"{value:.5g}") for key, value in run().items()}
        except (RuntimeError, ValueError) as error:
            found[name] = f"failed: {' '.join(str(error).split())[:300]}"
        sys.stdout.write(f"{name}: {found[name]}\n")
        sys.stdout.flush()
        (check.out / "sd.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--precisions", default="bf16,fp16,tf32,fp32")
    given = parser.parse_args(arguments)
    cuda = torch.cuda.is_available() and given.device != "cpu"
    given.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if cuda else "cpu")
    check = Check(device, given.small, given.steps, given.batch, given.crop, given.out)
    found = report(check, given.precisions.split(","))
    return int(any(isinstance(part, str) and part.startswith("failed") for part in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
