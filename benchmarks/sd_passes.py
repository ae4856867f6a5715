"""Compares the bits of preset `sd`'s entropy model with two passes of context and with four, on real
photographs.

    python benchmarks/sd_passes.py --data FOLDER_OR_TAR --valid FOLDER_OR_TAR [--steps 1500] [--threads N]

No trained transform is at hand, so y is a fixed one on the grid of `sd`: the lowest frequencies of the cosine
transform of every 64x64 pixels, luma and both chromas, which leave between neighbours what a linear transform
leaves. Scales are set to about 0.02 bits per pixel. Entropy networks alone are trained, the same steps on the
same crops for each order.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sprdiff.models.config import CHECKERBOARD, FOUR_PASSES, Passes
from sprdiff.models.latent_codec import LatentCodec
from sprdiff.sd.config import SD, SDConfig
from sprdiff.train.data.photos import PhotoStore, open_store

CELL, SIDE = 64, 8
"""The pixels of a position of y, and the positions along a side of a crop."""
FREQUENCIES = ((0, 5), (1, 3), (2, 3))
"""For each component (luma, two chromas) the bound below which the indices of its coefficients sum."""
STEP = 0.045
"""The step of the quantiser, for pixels in 0-1 under an orthonormal transform, relative to the deviation of
the mean."""
LEVEL = 128.0


def basis() -> Tensor:
    """Return the orthonormal cosine transform of 64 samples, [64,64]; its rows are frequencies."""
    k, n = torch.arange(CELL)[:, None], torch.arange(CELL)[None]
    found = torch.cos(math.pi * (n + 0.5) * k / CELL) * math.sqrt(2 / CELL)
    found[0] /= math.sqrt(2)
    return found


def latent(photo: np.ndarray) -> Tensor:
    """Transform uint8 [H,W,3] to [C,H//64,W//64]."""
    rows, columns = (side // CELL for side in photo.shape[:2])
    x = torch.from_numpy(np.array(photo[: rows * CELL, : columns * CELL])).float() / 255 - 0.5
    luma = x @ torch.tensor([0.299, 0.587, 0.114])
    planes = (luma, x[..., 2] - luma, x[..., 0] - luma)
    cosine, found = basis(), []
    for component, (plane, (_, limit)) in enumerate(zip(planes, FREQUENCIES, strict=True)):
        cells = plane.view(rows, CELL, columns, CELL).permute(0, 2, 1, 3)
        coefficients = cosine @ cells @ cosine.T / CELL / STEP
        found += [coefficients[..., i, j] for i in range(limit) for j in range(limit - i)]
        assert component < 3
    return torch.stack(found)


def latents(store: PhotoStore) -> list[Tensor]:
    """Return the latents of all photographs that are as large as a crop."""
    found = (latent(store.photo(i)) for i in range(len(store)))
    return [y for y in found if min(y.shape[1:]) >= SIDE]


def crops(found: list[Tensor], step: int, count: int) -> Tensor:
    """Return a batch of crops that depends on its number alone."""
    random = np.random.default_rng(step)
    picked = []
    for _ in range(count):
        y = found[int(random.integers(len(found)))]
        top, left = (int(random.integers(side - SIDE + 1)) for side in y.shape[1:])
        picked.append(y[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(picked)


def config_of(passes: Passes, channels: int) -> SDConfig:
    """Return the sizes of entropy networks for so few channels."""
    groups = (4, 4, 8, channels - 16)
    return replace(
        SD,
        passes=passes,
        y_channels=channels,
        groups=groups,
        z_channels=8,
        hyper_hidden=64,
        hyper_features=32,
        context_hidden=64,
        trunk=64,
        fused=16,
    )


def bits(codec: LatentCodec, y: Tensor) -> Tensor:
    """Return the bits of each latent of a batch, y and z together."""
    z = codec.hyper_analysis(codec._whole_blocks(y))
    q = codec(y, z, torch.full((len(y),), LEVEL), hard=True)
    return q.y_bits + q.z_bits


def trained(passes: Passes, found: list[Tensor], steps: int, batch: int) -> LatentCodec:
    """Train the entropy networks and return them."""
    torch.manual_seed(0)
    codec = LatentCodec(config_of(passes, len(found[0])))
    with torch.no_grad():
        codec.y_log_gain.zero_()
    codec.y_log_gain.requires_grad_(False)
    parameters = [p for n, p in codec.named_parameters() if p.requires_grad and not n.startswith("analysis.")]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * min(1.0, (steps - step) / (0.4 * steps))
        loss = bits(codec, crops(found, step, batch)).mean() / (SIDE * SIDE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 20.0)
        optimizer.step()
        if step % 250 == 0:
            print(f"step {step}: {float(loss.detach()):.2f} bits a position", flush=True)
    return codec


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--valid", type=Path, action="append", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        found, held = (latents(open_store(source, Path(scratch), [])) for source in (given.data, given.valid))
    pixels = sum(y[0].numel() for y in held) * CELL**2
    print(f"{len(found)} photographs, {len(held)} held out, {len(held[0])} channels", flush=True)
    print("| order | bits per pixel, held out | CPU seconds of training |\n|---|---|---|")
    for name, passes in (("two passes", CHECKERBOARD), ("four passes", FOUR_PASSES)):
        began = time.process_time()
        with torch.enable_grad():
            codec = trained(passes, found, given.steps, given.batch)
        cost = sum(float(bits(codec, y[None]).sum()) for y in held) / pixels
        print(f"| {name} | {cost:.5f} | {time.process_time() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
