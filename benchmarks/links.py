"""Simulates photographs over links that lose packets: how many arrive whole, in part, or not at all, and how
good they are.

    python benchmarks/links.py FOLDER_OR_TAR [--count 12] [--packets 8] [--payload 200] [--trials 2000]
    python benchmarks/links.py --time

All send the same number of packets of the same size: files of sprdiff with a quarter of parity, files of
sprdiff without, and AVIF files, cut up, without (the best of several scales that fits). Losses are
independent, or in bursts of three packets on average. What does not arrive counts as an MS-SSIM of 0.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
from photos import Pixels, guarded, photographs
from PIL import Image

from sprdiff import Codec, from_packets, to_packets
from sprdiff.evaluate.metrics.distortion import ms_ssim
from sprdiff.imageio.resize import resize
from sprdiff.packets.packet import OVERHEAD

RATES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
BURST = 3.0
"""How many packets a burst loses on average."""
SCALES = (1, 2, 3, 4, 6)
Pattern = tuple[bool, ...]
"""Which packets arrive."""


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(description="Photographs over links that lose packets.")
    parser.add_argument("photos", type=Path, nargs="?", help="folder or .tar of photographs")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--packets", type=int, default=8)
    parser.add_argument("--payload", type=int, default=200)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--time", action="store_true", help="only the time of from_packets for 1,000 packets")
    options = parser.parse_args()
    if options.time:
        timed()
        return
    if options.photos is None:
        parser.error("photographs are needed")
    photos = [
        pixels for (_, pixels), _ in zip(photographs(options.photos), range(options.count), strict=False)
    ]
    if not photos:
        sys.exit(f"there are no photographs in {options.photos}")
    print(
        f"{len(photos)} photographs in {options.packets} packets of {options.payload} bytes, "
        f"{options.trials} trials\n"
    )
    print(
        "| loss | bursts | sender | whole | in part | not at all | MS-SSIM |\n|---|---|---|---|---|---|---|"
    )
    codec = Codec(threads=options.threads)
    senders = {
        "sprdiff, a quarter of parity": sprdiff(
            codec, photos, options.packets, options.packets // 4, options.payload
        ),
        "sprdiff, no parity": sprdiff(codec, photos, options.packets, 0, options.payload),
        "AVIF, no parity": avif(photos, options.packets, options.payload),
    }
    for rate in RATES:
        for bursty in (False, True)[: 1 if rate == 0 else 2]:
            patterns = lossy(rate, options.packets, options.trials, bursty=bursty)
            for name, judge in senders.items():
                print(
                    line(rate, bursty, name, [judge(tuple(pattern)) for pattern in patterns.tolist()]),
                    flush=True,
                )


def lossy(rate: float, packets: int, trials: int, *, bursty: bool) -> np.ndarray:
    """Return which packets arrive, bool [trials, packets]. Bursts come from a channel with a good state and a
    bad one, which loses all."""
    rng = np.random.default_rng(0)
    if not bursty:
        return rng.random((trials, packets)) >= rate
    leave = 1 / BURST
    enter = leave * rate / (1 - rate)
    bad = rng.random(trials) < rate
    arrive = np.empty((trials, packets), bool)
    for packet in range(packets):
        arrive[:, packet] = ~bad
        bad = np.where(bad, rng.random(trials) >= leave, rng.random(trials) < enter)
    return arrive


def sprdiff(
    codec: Codec, photos: list[Pixels], packets: int, parity: int, payload: int
) -> Callable[[Pattern], tuple[float, float, float, float]]:
    """Return what arrives under a pattern of losses: shares whole, in part and not at all, and the mean
    MS-SSIM."""
    files = [codec.encode(pixels, max_bytes=(packets - parity) * (payload - OVERHEAD)) for pixels in photos]
    sent = [to_packets(data, payload=payload, parity=parity) for data in files]

    @cache
    def quality(photo: int, size: int) -> float:
        image = codec.decode(files[photo][:size], partial=True)
        return ms_ssim(photos[photo], np.asarray(image.convert("RGB")))

    @cache
    def judge(pattern: Pattern) -> tuple[float, float, float, float]:
        outcomes = []
        for photo, made in enumerate(sent):
            # A file that fits into fewer packets leaves the last ones of the pattern unused.
            streams = from_packets(packet for packet, arrives in zip(made, pattern, strict=False) if arrives)
            size = len(streams[0].data) if streams else 0
            whole = bool(streams) and streams[0].whole
            outcomes.append((whole, not whole and size > 0, size == 0, quality(photo, size) if size else 0.0))
        return mean(outcomes)

    return judge


def avif(
    photos: list[Pixels], packets: int, payload: int
) -> Callable[[Pattern], tuple[float, float, float, float]]:
    """Return the same of AVIF files that were cut up."""
    files = [smallest_loss(pixels, packets * payload) for pixels in photos]

    @cache
    def quality(photo: int, size: int) -> float | None:
        try:
            return ms_ssim(photos[photo], decoded(files[photo][:size], photos[photo]))
        except (OSError, ValueError, SyntaxError):
            return None

    @cache
    def judge(pattern: Pattern) -> tuple[float, float, float, float]:
        outcomes = []
        for photo, data in enumerate(files):
            reach = payload * next((n for n, arrives in enumerate(pattern) if not arrives), packets)
            found = quality(photo, min(reach, len(data)))
            whole = reach >= len(data)
            outcomes.append((whole, not whole and found is not None, found is None, found or 0.0))
        return mean(outcomes)

    return judge


def smallest_loss(pixels: Pixels, limit: int) -> bytes:
    """Return the AVIF file of at most `limit` bytes with the best MS-SSIM, over scales and qualities."""
    best, found = -1.0, b""
    for scale in SCALES:
        small = Image.fromarray(resize(pixels, (pixels.shape[0] // scale, pixels.shape[1] // scale)))
        low, high, data = 0, 100, b""
        while low <= high:
            quality = (low + high) // 2
            out = io.BytesIO()
            small.save(out, "AVIF", quality=quality, speed=4)
            low, high, data = (
                (quality + 1, high, out.getvalue()) if out.tell() <= limit else (low, quality - 1, data)
            )
        if data and (value := ms_ssim(pixels, decoded(data, pixels))) > best:
            best, found = value, data
    if not found:
        raise ValueError(f"no AVIF file is as small as {limit} bytes")
    return found


def decoded(data: bytes, pixels: Pixels) -> Pixels:
    """Decode an AVIF file's picture at the size of another."""
    with Image.open(io.BytesIO(data)) as image:
        return resize(np.asarray(image.convert("RGB")), (pixels.shape[0], pixels.shape[1]))


def mean(outcomes: Iterable[tuple[float, ...]]) -> tuple[float, float, float, float]:
    """Return the mean of each column."""
    whole, part, nothing, quality = np.mean(np.array(list(outcomes), float), axis=0).tolist()
    return whole, part, nothing, quality


def line(rate: float, bursty: bool, name: str, outcomes: list[tuple[float, float, float, float]]) -> str:
    """Return one row of the table."""
    whole, part, nothing, quality = mean(outcomes)
    shares = " | ".join(f"{share:.0%}" for share in (whole, part, nothing))
    return f"| {rate:.0%} | {'yes' if bursty else 'no'} | {name} | {shares} | {quality:.3f} |"


def timed() -> None:
    """Print how long `from_packets` takes for 1,000 packets of four streams, none lost, in no order."""
    from sprdiff.format.container import Header, pack_file

    rng = np.random.default_rng(0)
    header, digest = Header(4000, 3000, 200, 0, False, 1, b"ab"), b"ab" * 16
    files = [
        pack_file(header, rng.integers(1, 256, 48_200).astype(np.uint8).tobytes(), digest) for _ in range(4)
    ]
    packets = [packet for data in files for packet in to_packets(data, payload=200)]
    rng.shuffle(packets)
    start = time.perf_counter()
    found = from_packets(packets)
    seconds = time.perf_counter() - start
    print(
        f"{len(packets)} packets of {len(found)} streams, "
        f"all whole: {all(f.whole for f in found)}: {seconds:.3f} s"
    )


if __name__ == "__main__":
    guarded(main)
