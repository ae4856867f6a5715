"""Measures both dials, picture by picture: does more quality cost more and show more, does more realism gain
what it costs?

    python benchmarks/dials.py FOLDER_OR_TAR [--features SQUEEZENET]

Quality 0, 10 ... 100: bytes and PSNR of the coarse picture, and every step of either that is not upwards.
Realism 0, 0.25 ... 1 of one file of `--bpp`: PSNR, which may not rise by more than 0.05 dB in a step, and
feature distance, which has to fall. Exits with 1 if any picture breaks a rule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from photos import Pixels, guarded, photographs

from sprdiff import Codec
from sprdiff.evaluate.metrics.distortion import psnr
from sprdiff.evaluate.metrics.features import FeatureNetwork

QUALITIES = range(0, 101, 10)
REALISMS = (0.0, 0.25, 0.5, 0.75, 1.0)
TOLERANCE = 0.05
"""How many dB PSNR may rise from one realism to the next."""
Distance = Callable[[Pixels, Pixels], float]
T = TypeVar("T")


def main() -> None:
    """Measure, and print two tables of means and what broke a rule."""
    parser = argparse.ArgumentParser(description="Both dials, picture by picture.")
    parser.add_argument("photos", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--features", type=Path, help="SqueezeNet 1.1 weights of keras-squeezenet")
    parser.add_argument("--weights", type=Path, help="weights folder; default: the one of the package")
    parser.add_argument("--bpp", type=float, default=0.0203, help="of the file whose realism is varied")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    codec = Codec(options.weights, threads=options.threads)
    metric = FeatureNetwork.load(options.features).feature_distance if options.features else None
    broken, rates, dials = [], [], []
    for name, pixels in photographs(options.photos):
        files = [codec.encode(pixels, quality=float(quality)) for quality in QUALITIES]
        sizes = [8 * len(data) / (pixels.shape[0] * pixels.shape[1]) for data in files]
        coarse = [psnr(pixels, np.asarray(codec.decode(data, realism=0).convert("RGB"))) for data in files]
        rates.append((sizes, coarse))
        broken += [f"{name}: no more bytes at quality {q}" for q in falls(QUALITIES, sizes)]
        broken += [f"{name}: coarse PSNR no higher at quality {q}" for q in falls(QUALITIES, coarse)]
        shown = at_realisms(codec, pixels, options.bpp, metric)
        dials.append(shown)
        broken += [f"{name}: PSNR rises at realism {r:g}" for r in rises(REALISMS, shown[0], TOLERANCE)]
        if metric:
            broken += [
                f"{name}: feature distance rises at realism {r:g}" for r in rises(REALISMS, shown[1], 0.0)
            ]
    if not rates:
        sys.exit(f"there are no photographs in {options.photos}")
    print(
        f"{len(rates)} photographs\n\n"
        "| quality | bits per pixel | PSNR of the coarse picture, dB |\n|---|---|---|"
    )
    for quality, bpp, level in zip(QUALITIES, *np.mean(rates, 0), strict=True):
        print(f"| {quality} | {bpp:.4f} | {level:.2f} |")
    print("\n| realism | PSNR, dB | feature distance |\n|---|---|---|")
    for realism, level, distance in zip(REALISMS, *np.mean(dials, 0), strict=True):
        print(f"| {realism:g} | {level:.2f} | {distance:.3f} |")
    print("\n" + ("\n".join(broken) if broken else "every picture keeps every rule"))
    sys.exit(1 if broken else 0)


def at_realisms(
    codec: Codec, pixels: Pixels, bpp: float, metric: Distance | None
) -> tuple[list[float], list[float]]:
    """Return PSNR and feature distance (nan without a metric) of one file at each of `REALISMS`."""
    data = codec.encode(pixels, bpp=bpp)
    images = [np.asarray(codec.decode(data, realism=realism).convert("RGB")) for realism in REALISMS]
    distances = [metric(pixels, image) if metric else float("nan") for image in images]
    return [psnr(pixels, image) for image in images], distances


def falls(dial: Sequence[T], values: Sequence[float]) -> list[T]:
    """Return the settings whose value is not above that of the setting before."""
    return [here for here, (before, after) in zip(dial[1:], pairwise(values), strict=True) if after <= before]


def rises(dial: Sequence[T], values: Sequence[float], tolerance: float) -> list[T]:
    """Return the settings whose value is above that of the setting before by more than the tolerance."""
    return [here for here, (a, b) in zip(dial[1:], pairwise(values), strict=True) if b > a + tolerance]


if __name__ == "__main__":
    guarded(main)
