"""Measures what ``--effort`` gains and costs: bytes at equal quality of the coarse picture, and seconds.

    python benchmarks/effort.py FOLDER_OR_TAR --count 8 --efforts 3,6,9

Each photograph, cut to 768x512, is coded at scale 1 at a ladder of qualities without effort. A refined file
is compared with the file of that ladder that would have the same PSNR (log-linear between neighbours), once
at a fixed quality and once with the bytes of that quality as the target.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photos import Pixels, cut, guarded

from sprdiff import Codec
from sprdiff.evaluate.metrics.distortion import psnr

LEVELS = range(60, 200, 10)
SIZE = (512, 768)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="What --effort brings and costs.")
    parser.add_argument("photos", type=Path, help="folder or .tar of photographs")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--efforts", default="3,6,9")
    parser.add_argument("--qualities", default="30,47,65")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    codec = Codec(threads=options.threads)
    photos = [photo for photo, _ in zip(cut(options.photos, SIZE), range(options.count), strict=False)]
    if not photos:
        sys.exit(f"there are no photographs of at least {SIZE[1]}x{SIZE[0]} pixels in {options.photos}")
    ladders = [ladder(codec, photo) for photo in photos]
    efforts = [int(effort) for effort in options.efforts.split(",")]
    codec.encode(photos[0][:64, :64], effort=1)  # torch is loaded now
    print(
        f"{len(photos)} photographs\n\n"
        "| effort | quality | saved at that quality | saved at its bytes | seconds |"
    )
    print("|---|---|---|---|---|")
    for effort in efforts:
        for quality in map(float, options.qualities.split(",")):
            rows = [
                measure(codec, photo, own, quality, effort)
                for photo, own in zip(photos, ladders, strict=True)
            ]
            fixed, target, _ = np.mean(rows, 0)
            seconds = [row[2] for row in rows]
            took = f"{np.median(seconds):.1f}, longest {max(seconds):.1f}"
            print(f"| {effort} | {quality:g} | {fixed:.1%} | {target:.1%} | {took} |", flush=True)


def ladder(codec: Codec, photo: Pixels) -> NDArray[np.float64]:
    """Return (PSNR of the coarse picture, ln bytes) at rising qualities, without effort."""
    files = [codec.encode(photo, quality=100 * level / 255, scale=1) for level in LEVELS]
    return np.array([(coarse_psnr(codec, photo, data), math.log(len(data))) for data in files])


def coarse_psnr(codec: Codec, photo: Pixels, data: bytes) -> float:
    """Return the PSNR of the picture at realism 0, in dB."""
    return psnr(photo, np.asarray(codec.decode(data, realism=0)))


def measure(
    codec: Codec, photo: Pixels, own: NDArray[np.float64], quality: float, effort: int
) -> list[float]:
    """Return the bytes saved at the same quality level and at the same target, and the seconds of the
    latter."""

    def saved(data: bytes) -> float:
        plain = math.exp(np.interp(coarse_psnr(codec, photo, data), own[:, 0], own[:, 1]))
        return 1 - len(data) / plain

    target = len(codec.encode(photo, quality=quality, scale=1))
    fixed = saved(codec.encode(photo, quality=quality, scale=1, effort=effort))
    start = time.perf_counter()
    data = codec.encode(photo, max_bytes=target, scale=1, effort=effort)
    seconds = time.perf_counter() - start
    return [fixed, saved(data), seconds]


if __name__ == "__main__":
    guarded(main)
