"""Measures checkpoints on whole photographs, before they are exported: a gate of training, in minutes.

    python benchmarks/checkpoints.py FOLDER_OR_TAR --init CODEC --init VAE [--init FLOW] --features SQUEEZENET
        [--bpp 0.0203] [--steps 1,2,4,8] [--seeds 1] [--dial 0.5,0.75] [--few] [--count 40] [--out FOLDER]
        [--worse FLOW --guide 1,2]

Every photograph is coded at the highest level whose estimated bits, header included, are within `--bpp`, at
its own size. Judged are x̃ (`coarse`), what the latent of the original makes of it (`vae`), and samples of so
many evaluations (`N steps`), also part of the way from x̃ to them (`N steps @ S`). `--few` asks the network
for steps of their size. PSNR, MS-SSIM, feature distance and Fréchet distance are those of `sprdiff eval`.
`--worse` is an earlier checkpoint of the flow, which guides the better one with each weight (`N steps, guided
1`). `--out` keeps the pictures.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from pathlib import Path

import numpy as np
import torch
from photos import guarded, photographs
from PIL import Image
from torch import Tensor

from sprdiff.errors import TrainingError
from sprdiff.evaluate.pairs import Pairs
from sprdiff.format.constants import LEVELS
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.train import checkpoints
from sprdiff.train.initial import build, read_initial
from sprdiff.train.stages.codec import receive
from sprdiff.train.validation.rates import HEADER_BITS, padded
from sprdiff.train.validation.samples import draw, to_pixels

Received = tuple[Tensor, Tensor, Tensor]


def main() -> None:
    """Measure and print a table."""
    options = _options()
    torch.set_num_threads(options.threads)
    model = build(options.preset)
    parts = {
        part for path in options.init for part in checkpoints.load_networks(model, read_initial(path), path)
    }
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    worse = _worse(model, options.worse)
    judged: dict[str, Pairs] = {}
    rates = []
    for (name, pixels), _ in zip(photographs(options.photos), range(options.count), strict=False):
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            received, level, bpp = coded(model, padded(x), pixels.shape[0] * pixels.shape[1], options.bpp)
            found = pictures((model, worse), padded(x), received, level, parts, options)
        rates.append(bpp)
        for kind, image in found.items():
            shown = to_pixels(image, pixels.shape[:2])
            judged.setdefault(kind, Pairs(options.features)).add(pixels, shown)
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                Image.fromarray(shown).save(options.out / f"{Path(name).stem}_{kind.replace(' ', '')}.png")
    if not rates:
        raise TrainingError(f"there are no photographs in {options.photos}")
    print(
        f"{len(rates)} photographs, {np.mean(rates):.5f} bpp\n\n"
        "| | PSNR | MS-SSIM | feature distance | Fréchet |"
    )
    print("|---|---|---|---|---|")
    for kind, pairs in judged.items():
        m = pairs.means()
        print(
            f"| {kind} | {m['psnr']:.2f} | {m['ms_ssim']:.4f} "
            f"| {m.get('feature_distance', float('nan')):.3f} "
            f"| {m.get('frechet', float('nan')):.0f} |"
        )


def coded(model: SPRDiff, x: Tensor, pixels: int, bpp: float) -> tuple[Received, Tensor, float]:
    """Return what a receiver has of an image at the highest level within a rate, the level [1], and the bits
    per pixel."""
    low, high = 0, LEVELS - 1
    while low < high:
        middle = (low + high + 1) // 2
        bits = float(receive(model, x, torch.tensor([float(middle)]))[3])
        low, high = (middle, high) if bits + HEADER_BITS <= bpp * pixels else (low, middle - 1)
    level = torch.tensor([float(low)])
    coarse, f16, f32, bits = receive(model, x, level)
    return (coarse, f16, f32), level, (float(bits) + HEADER_BITS) / pixels


def pictures(
    models: tuple[SPRDiff, SPRDiff | None],
    x: Tensor,
    received: Received,
    level: Tensor,
    parts: set[str],
    options: argparse.Namespace,
) -> dict[str, Tensor]:
    """Return pictures [1,3,H,W] in 0-1, by what they show.

    Args:
        models: the model, and one with a worse flow that guides it or None.
    """
    model, worse = models
    coarse, f16, f32 = received
    found = {"coarse": coarse}
    if "vae_decoder" in parts:
        mean, log_deviation = (part.float() for part in model.triple_encoder.vae(x, coarse))
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
        found["vae"] = model.vae_decoder(mean + log_deviation.exp() * noise, coarse).float()
    if "flow" not in parts:
        return found
    for steps, seed, guide in itertools.product(options.steps, range(options.seeds), [0.0, *options.guide]):
        picture = draw(
            model,
            coarse,
            f16,
            f32,
            level,
            steps=steps,
            few=options.few,
            seed=seed,
            scale=options.noise,
            guide=guide,
            worse=worse if guide else None,
        )
        name = (
            f"{steps} steps" + (f", seed {seed}" if seed else "") + (f", guided {guide:g}" if guide else "")
        )
        found[name] = picture
        for share in options.dial if not seed else ():
            found[f"{name} @ {share}"] = coarse + share * (picture - coarse)
    return found


def _worse(model: SPRDiff, path: Path | None) -> SPRDiff | None:
    if path is None:
        return None
    worse = copy.deepcopy(model)
    checkpoints.load_networks(worse, read_initial(path), path)
    return worse


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Figures of checkpoints on whole photographs.")
    parser.add_argument("photos", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--init", type=Path, action="append", required=True, help="checkpoint; may repeat")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument(
        "--features", type=Path, help="weights of SqueezeNet 1.1; none: PSNR and MS-SSIM alone"
    )
    parser.add_argument("--bpp", type=float, default=0.0203)
    parser.add_argument("--steps", type=_numbers(int), default=[1, 2, 4, 8], help="evaluations, with commas")
    parser.add_argument(
        "--dial", type=_numbers(float), default=[0.5], help="shares of the way from x̃, with commas"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--noise", type=float, default=1.0, help="deviation of the noise at the start")
    parser.add_argument("--few", action="store_true", help="the flow was trained for few steps")
    parser.add_argument("--worse", type=Path, help="checkpoint of a worse flow, for --guide")
    parser.add_argument("--guide", type=_numbers(float), default=[], help="weights of it, with commas")
    parser.add_argument("--count", type=int, default=1000, help="first so many photographs only")
    parser.add_argument("--bf16", action="store_true", help="networks in bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    if bool(options.guide) != (options.worse is not None):
        parser.error("--guide and --worse belong together")
    return options


def _numbers(kind: type) -> object:
    return lambda text: [kind(part) for part in text.split(",") if part]


guarded(main)
