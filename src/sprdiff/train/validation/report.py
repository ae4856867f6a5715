"""The report of a run: progress on a terminal, a JSON line every few steps, TensorBoard, figures of
validation."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ...common.terminal import ProgressBar
from ...evaluate.metrics.distortion import MIN_SIDE
from ...evaluate.metrics.features import FeatureNetwork
from ...evaluate.pairs import Pairs
from ..data.photos import PhotoStore
from ..stages.base import StageModule
from .rates import LEVELS_TRIED, Judgement, Point, best_of, by_level, curve, padded
from .samples import sheet, to_pixels

log = logging.getLogger(__name__)

EVERY = 50
VALIDATION_PHOTOS = 12
"""How many photographs of shards are kept for validation."""
LARGE, LARGE_SCALES = 1_000_000, (1.0, 2.0)
"""The number of pixels from which validation also codes a photograph smaller, by these factors."""
SAMPLED_LEVEL = 128.0
"""The level at which samples are drawn."""


class Report:
    """Collects scalars and writes the log. Progress is shown on a terminal only; only the main process is
    active."""

    def __init__(
        self,
        out: Path,
        name: str,
        steps: int,
        *,
        active: bool,
        features: Path | None = None,
        judged: Judgement | None = None,
    ) -> None:
        """Open the log.

        Args:
            out: the folder of the log.
            name: the name of the stage.
            steps: the last step of the stage.
            active: whether this process writes the log.
            features: the weights of SqueezeNet, which measures samples; None: PSNR and MS-SSIM only.
            judged: what validation measures; None: whole photographs at the usual rates.
        """
        self.out, self.name = out, name
        self.judged = judged or Judgement()
        self.network = None if features is None else FeatureNetwork.load(features)
        self.active, self.steps, self.count = active, steps, 0
        self.sums: dict[str, Tensor] = {}
        self.started: tuple[float, int] | None = None
        self.last = 0, 0.0
        if not active:
            return
        out.mkdir(parents=True, exist_ok=True)
        self.file = (out / f"{name}.jsonl").open("a", buffering=1)
        self.board = SummaryWriter(str(out / "tensorboard" / name))
        self.progress = ProgressBar(name, steps, named=True, keep=True)
        self.progress.start()

    def step(self, step: int, scalars: dict[str, Tensor], lr: float) -> None:
        """Add the scalars of a step; every 50 steps their means are written."""
        for key, value in scalars.items():
            self.sums[key] = self.sums[key] + value.detach() if key in self.sums else value.detach()
        self.count += 1
        if self.started is None:  # the first step takes longer: it loads and tunes libraries
            self.started = (time.monotonic(), step)
        self.last = step, lr
        if step % EVERY == 0 or step == self.steps:
            self._flush()

    def _flush(self) -> None:
        if self.active and self.count:
            step, lr = self.last
            self._write(step, {k: float(v) / self.count for k, v in self.sums.items()}, lr)
        self.sums, self.count = {}, 0

    def _write(self, step: int, means: dict[str, float], lr: float) -> None:
        now = time.monotonic()
        pace = (now - self.started[0]) / max(step - self.started[1], 1) if self.started else 0.0
        self.started = (now, step)
        row = {"step": step, "lr": lr, "seconds_per_step": pace, **means}
        self.file.write(
            json.dumps({k: float(f"{v:.5g}") if k != "step" else v for k, v in row.items()}) + "\n"
        )
        for key, value in row.items():
            self.board.add_scalar(key, value, step)
        text = " ".join(f"{k} {means[k]:.4g}" for k in ("loss", "bpp", "mse") if k in means)
        self.progress.show(step, text=text)

    def validate(self, step: int, module: StageModule, store: PhotoStore, device: torch.device) -> None:
        """Log the figures of validation photographs: at fixed rates, or of samples if the stage draws any."""
        photos = [self.judged.middle(store.photo(i)) for i in range(len(store))]
        row: dict[str, Any] = {"step": step}
        if photos and module.reconstruct(_probe(device), torch.zeros(1, device=device)) is not None:
            row.update(self._rates(module, photos, device))
        else:
            row.update(self._samples(module, photos, device))
        if self.active and len(row) > 1:
            self.file.write(json.dumps(row) + "\n")

    def _rates(self, module: StageModule, photos: list[np.ndarray], device: torch.device) -> dict[str, Any]:
        """Return the figures at fixed rates for small and for large photographs and, if wanted, at each
        level."""
        found: dict[str, Any] = {}
        curves = []
        for large, name, scales in ((False, "small", (1.0,)), (True, "large", LARGE_SCALES)):
            some = [p for p in photos if (p.shape[0] * p.shape[1] >= LARGE) is large]
            of_size = [
                [curve(module, p, scale, LEVELS_TRIED, device, self.judged.perceptual) for scale in scales]
                for p in some
            ]
            if some:
                found[name] = _rounded(best_of(of_size, self.judged.rates))
            curves += of_size
        if self.judged.by_level:
            means = by_level(curves)
            found["level"] = {str(level): [round(p.bpp, 5), *p.figures] for level, p in means.items()}
        return found

    @torch.no_grad()
    def _samples(
        self, module: StageModule, photos: list[np.ndarray], device: torch.device
    ) -> dict[str, dict[str, float]]:
        """Return the figures of every kind of sample; write a contact sheet beside the checkpoint."""
        judged: dict[str, Pairs] = {}
        columns: dict[str, list[np.ndarray]] = {"original": []}
        level = torch.full((1,), SAMPLED_LEVEL, device=device)
        for photo in (p for p in photos if min(p.shape[:2]) >= MIN_SIDE):
            x = torch.from_numpy(np.array(photo)).to(device).permute(2, 0, 1)[None].float() / 255
            found = module.samples(padded(x), level)
            if found is None:
                return {}
            columns["original"].append(np.asarray(photo))
            for name, image in found.items():
                picture = to_pixels(image, photo.shape[:2])
                columns.setdefault(name, []).append(picture)
                judged.setdefault(name, Pairs(self.network)).add(np.asarray(photo), picture)
        if self.active and judged:
            sheet(self.out / f"{self.name}.png", list(columns.values()))
        return {name: pairs.means() for name, pairs in judged.items()}

    def close(self) -> None:
        """Write what is left and stop the progress bar."""
        if self.active:
            self._flush()  # a leg of so many minutes may end at any step
            self.progress.close()
            self.file.close()
            self.board.close()


def _probe(device: torch.device) -> Tensor:
    return torch.zeros(1, 3, 64, 64, device=device)


def _rounded(found: dict[float, Point]) -> dict[str, list[float]]:
    """Return PSNR, MS-SSIM and the perceptual distance by rate, for the log."""
    return {str(rate): p.figures for rate, p in found.items()}
