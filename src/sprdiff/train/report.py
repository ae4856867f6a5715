"""What a run tells: a progress bar on a terminal, a JSON line every few steps, TensorBoard, validation figures."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..evaluate.metrics import ms_ssim, psnr
from .data import PhotoStore
from .stages import StageModule

log = logging.getLogger(__name__)

EVERY = 50
VALIDATION_LEVELS = (32, 128, 224)
VALIDATION_PHOTOS = 12
SMALLEST = 192
"""Photos with a smaller side cannot be validated on: MS-SSIM needs 161 pixels, the networks multiples of 64."""


class Report:
    """Collects scalars; silent but for the log file when standard error is no terminal or on other ranks."""

    def __init__(self, out: Path, name: str, steps: int, *, active: bool) -> None:
        self.active, self.steps, self.count = active, steps, 0
        self.sums: dict[str, Tensor] = {}
        self.started: tuple[float, int] | None = None
        if not active:
            return
        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / f"{name}.jsonl").open("a", buffering=1)
        self.board = SummaryWriter(str(out / "tensorboard" / name))
        columns = (TextColumn(f"[bold]{name}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
                   TimeRemainingColumn())  # fmt: skip
        self.progress = Progress(
            *columns, console=Console(stderr=True), disable=sys.stderr is None or not sys.stderr.isatty()
        )
        self.task = self.progress.add_task(name, total=steps, text="")
        self.progress.start()

    def step(self, step: int, scalars: dict[str, Tensor], lr: float) -> None:
        """Add one step's scalars; every 50 steps their means are written out."""
        for key, value in scalars.items():
            self.sums[key] = self.sums.get(key, torch.zeros(())) + value.detach().cpu()
        self.count += 1
        if step % EVERY and step != self.steps:
            return
        if self.active:
            self._write(step, {k: float(v) / self.count for k, v in self.sums.items()}, lr)
        self.sums, self.count = {}, 0

    def _write(self, step: int, means: dict[str, float], lr: float) -> None:
        now = time.monotonic()
        pace = (now - self.started[0]) / max(step - self.started[1], 1) if self.started else 0.0
        self.started = (now, step)
        row = {"step": step, "lr": lr, "seconds_per_step": pace, **means}
        self.file.write(json.dumps({k: float(f"{v:.5g}") if k != "step" else v for k, v in row.items()}) + "\n")
        for key, value in row.items():
            self.board.add_scalar(key, value, step)
        text = " ".join(f"{k} {means[k]:.4g}" for k in ("loss", "bpp", "mse") if k in means)
        self.progress.update(self.task, completed=step, text=text)

    def validate(self, step: int, module: StageModule, store: PhotoStore, device: torch.device) -> None:
        """PSNR (dB), MS-SSIM and estimated bpp on whole validation photos at three levels, with a picture."""
        rows = [self._validate_level(step, module, store, level, device) for level in VALIDATION_LEVELS]
        if self.active and any(rows):
            self.file.write(json.dumps({"step": step, "validation": rows}) + "\n")

    def _validate_level(
        self, step: int, module: StageModule, store: PhotoStore, level: int, device: torch.device
    ) -> dict[str, float]:
        found: list[tuple[float, float, float]] = []
        torch.manual_seed(0)
        large = [i for i in range(len(store)) if min(store.shapes[i]) >= SMALLEST][:VALIDATION_PHOTOS]
        if not large:
            return {}
        for index in large:
            photo = np.array(whole(store.photo(index)))  # torch takes no view of a read-only map
            x = torch.from_numpy(photo).permute(2, 0, 1)[None].to(device, torch.float32) / 255
            shown = module.reconstruct(x, torch.full((1,), float(level), device=device))
            if shown is None:
                return {}
            image, bpp = shown
            decoded = (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            found.append((psnr(photo, decoded), ms_ssim(photo, decoded), float(bpp)))
            if self.active and index == large[0]:
                self.board.add_image(f"level {level}", np.concatenate([photo, decoded], 1), step, dataformats="HWC")
        means = np.array(found).mean(0)
        row = dict(zip(("psnr", "ms_ssim", "bpp"), (round(float(v), 5) for v in means), strict=True))
        for key, value in row.items() if self.active else ():
            self.board.add_scalar(f"validation/{key} at level {level}", value, step)
        return {"level": level, **row}

    def close(self) -> None:
        """Flush and end the progress bar."""
        if self.active:
            self.progress.stop()
            self.file.close()
            self.board.close()


def whole(photo: np.ndarray) -> np.ndarray:
    """The largest centred part whose sides are multiples of 64: [h,w,3]."""
    h, w = (side // 64 * 64 for side in photo.shape[:2])
    top, left = (photo.shape[0] - h) // 2, (photo.shape[1] - w) // 2
    return photo[top : top + h, left : left + w]
