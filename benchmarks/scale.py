"""Measures the rule that picks the coded scale against trying every scale.

    python benchmarks/scale.py FOLDER_OR_TAR --count 12 [--bpp 0.003,0.0065,...] [--megapixels 8]

At each rate every photograph is coded at every scale that can be that small; of the coarse picture PSNR and
MS-SSIM are taken. The table says how much the scale that the rule picks loses against the best one, by either
measure, and how often each is picked.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from photos import Pixels, guarded, photographs

from sprdiff import Codec
from sprdiff.errors import TargetError
from sprdiff.evaluate.metrics.distortion import ms_ssim, psnr
from sprdiff.format.container import SCALES, parse_file
from sprdiff.imageio.resize import resize

RATES = "0.003,0.0045,0.0065,0.009,0.0115,0.014,0.02,0.03,0.06"
HOPELESS = 4
"""How far beyond the rule's scale others are tried: each further one is worse than the one before."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description="The rule that picks the coded scale, against trying every scale."
    )
    parser.add_argument("photos", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--bpp", default=RATES)
    parser.add_argument("--megapixels", type=float, help="enlarge each photograph to about this size first")
    parser.add_argument("--weights", type=Path, help="weights folder; default: the one of the package")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    codec = Codec(options.weights, threads=options.threads)
    photos = [
        pixels for (_, pixels), _ in zip(photographs(options.photos), range(options.count), strict=False)
    ]
    if not photos:
        sys.exit(f"there are no photographs in {options.photos}")
    if options.megapixels:
        photos = [enlarged(pixels, options.megapixels) for pixels in photos]
    print(f"{len(photos)} photographs of {np.mean([p.size / 3e6 for p in photos]):.2f} megapixels\n")
    print("| bpp | picked | best by PSNR | by MS-SSIM | loses, dB | loses, MS-SSIM | worst, dB |")
    print("|---|---|---|---|---|---|---|")
    for bpp in map(float, options.bpp.split(",")):
        print(line(bpp, [tried(codec, pixels, bpp) for pixels in photos]), flush=True)


def enlarged(pixels: Pixels, megapixels: float) -> Pixels:
    """Enlarge the photograph to about so many pixels: it is as smooth as the picture of a large camera is at
    best."""
    factor = math.sqrt(megapixels * 1e6 / (pixels.size / 3))
    return resize(pixels, (round(pixels.shape[0] * factor), round(pixels.shape[1] * factor)))


def tried(codec: Codec, pixels: Pixels, bpp: float) -> tuple[float, dict[float, tuple[float, float]]]:
    """Return the scale that the rule picks, and (PSNR, MS-SSIM) at it and at every other scale that can be so
    small."""
    try:
        picked = parse_file(codec.encode(pixels, bpp=bpp)).header.scale
    except TargetError:
        return math.nan, {}
    found = {}
    for code, scale in enumerate(map(float, SCALES)):
        if code > picked + HOPELESS:
            break
        try:
            data = codec.encode(pixels, bpp=bpp, scale=scale)
        except TargetError:
            continue
        coarse = np.asarray(codec.decode(data, realism=0).convert("RGB"))
        found[scale] = (psnr(pixels, coarse), ms_ssim(pixels, coarse))
    return float(SCALES[picked]), found


def line(bpp: float, results: list[tuple[float, dict[float, tuple[float, float]]]]) -> str:
    """Return one row of the table; photographs that cannot be so small are left out."""
    possible = [(picked, found) for picked, found in results if found]
    if not possible:
        return f"| {bpp:g} | none can be so small | | | | | |"
    losses = np.array(
        [[max(v[i] for v in found.values()) - found[picked][i] for i in (0, 1)] for picked, found in possible]
    )
    best = [Counter(max(found, key=lambda s: found[s][i]) for _, found in possible) for i in (0, 1)]
    columns = [names(Counter(picked for picked, _ in possible)), *map(names, best)]
    figures = [f"{losses[:, 0].mean():.3f}", f"{losses[:, 1].mean():.4f}", f"{losses[:, 0].max():.2f}"]
    return f"| {bpp:g} | {' | '.join(columns + figures)} |"


def names(counts: Counter[float]) -> str:
    """List the scales and how often each was picked."""
    return ", ".join(f"{scale:g}: {count}" for scale, count in sorted(counts.items()))


if __name__ == "__main__":
    guarded(main)
