"""Measures beginnings of files beside whole files of the same size.

    python benchmarks/prefixes.py FOLDER_OR_TAR --features SQUEEZENET [--count 12] [--bpp 0.02]

Every photograph is coded once; the first 25, 50, 75 and 90 % of its bytes are decoded with `partial`, beside
a whole file of at most so many bytes. The table has the means of MS-SSIM and of the SqueezeNet feature
distance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from photos import Pixels, guarded, photographs

from sprdiff import Codec
from sprdiff.errors import TargetError
from sprdiff.evaluate.metrics.distortion import ms_ssim
from sprdiff.evaluate.metrics.features import FeatureNetwork

PARTS = (0.25, 0.5, 0.75, 0.9)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Beginnings of files beside whole files of the same size.")
    parser.add_argument("photos", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--features", type=Path, help="weights of SqueezeNet 1.1; none: MS-SSIM alone")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--bpp", type=float, default=0.02)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    codec = Codec(threads=options.threads)
    network = FeatureNetwork.load(options.features) if options.features else None
    rows = [
        measured(codec, network, pixels, options.bpp)
        for (_, pixels), _ in zip(photographs(options.photos), range(options.count), strict=False)
    ]
    if not rows:
        sys.exit(f"there are no photographs in {options.photos}")
    print(f"{len(rows)} photographs at {options.bpp:g} bpp\n")
    print(
        "| bytes | symbols known | MS-SSIM, beginning | whole file "
        "| feature distance, beginning | whole file |"
    )
    print("|---|---|---|---|---|---|")
    means = np.array(rows).mean(0)  # without the network the distances are no numbers
    for part, (known, *figures) in zip((*PARTS, 1.0), means, strict=True):
        print(f"| {part:.0%} | {known:.0%} | " + " | ".join(f"{figure:.4f}" for figure in figures) + " |")


def measured(codec: Codec, network: FeatureNetwork | None, pixels: Pixels, bpp: float) -> list[list[float]]:
    """Return for each part, and for all of a file: symbols known, then both measures of the beginning and of
    the whole file (see `main`)."""
    data = codec.encode(pixels, bpp=bpp)
    rows = []
    for part in (*PARTS, 1.0):
        size = round(part * len(data))
        beginning = codec.decode(data[:size], partial=True)
        try:
            whole = codec.decode(codec.encode(pixels, max_bytes=size))
        except TargetError:  # no whole file is so small
            rows.append([beginning.info["known"], *[np.nan] * 4])
            continue
        pairs = [figures(network, pixels, np.asarray(image.convert("RGB"))) for image in (beginning, whole)]
        rows.append(
            [beginning.info["known"], *(value for both in zip(*pairs, strict=True) for value in both)]
        )
    return rows


def figures(network: FeatureNetwork | None, pixels: Pixels, decoded: Pixels) -> tuple[float, float]:
    """Return MS-SSIM and the feature distance."""
    return ms_ssim(pixels, decoded), np.nan if network is None else network.feature_distance(pixels, decoded)


if __name__ == "__main__":
    guarded(main)
