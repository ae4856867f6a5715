"""Throughput and memory of ``sprdiff batch`` on this machine.

    python benchmarks/batch.py [FOLDER] [--photos N] [--small N] [--jobs 1,2] [--repeats N]

It prints two Markdown tables. The first has the images per second at each number of processes, over the
photographs of a folder, or over made-up ones of 768x512. The second has the memory of all processes together
over many small pictures, which must not grow with their number. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from speed import print_table, processor, texture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def write_photos(folder: Path, count: int) -> Path:
    """Make photographs of 768x512 up, each from another part of one texture."""
    folder.mkdir(parents=True)
    for number in range(count):
        start = 97 * number
        Image.fromarray(texture(768, start, start + 512)).save(folder / f"{number:05d}.png", compress_level=1)
    return folder


def write_small(folder: Path, count: int) -> Path:
    """Make pictures of 64x64, a thousand to a folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3)), 16, 0), 16, 1).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(colours).save(stream, "JPEG", quality=90)
        path.write_bytes(stream.getvalue())
    return folder


def link_photos(source: Path, folder: Path, count: int) -> Path:
    """Link the first photographs of a folder; where it has too few, they come again and again."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"{source} holds no photographs")
    folder.mkdir(parents=True)
    for number in range(count or len(found)):
        path = found[number % len(found)]
        (folder / f"{number:05d}{path.suffix}").symlink_to(path.resolve())
    return folder


class Memory(threading.Thread):
    """Watches the memory of a process and of its children.

    Attributes:
        samples: how many outputs there were and how many bytes all processes held, a few times each second.
    """

    def __init__(self, pid: int, dest: Path) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[int, int]] = []
        self._process, self._dest, self._end = psutil.Process(pid), dest, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._end.wait(0.5):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                done = sum(1 for _ in self._dest.glob("[0-9]*/*.sprd"))
                self.samples.append((done, sum(_memory(process) for process in family)))
            except psutil.Error:
                continue

    def stop(self) -> None:
        self._end.set()
        self.join()


def _memory(process: psutil.Process) -> int:
    """Return the bytes of a process; a page that several processes share counts in parts, where the system
    says so."""
    try:
        about = process.memory_full_info()
        return int(getattr(about, "pss", about.rss))
    except psutil.Error:
        return 0


def run(
    source: Path, dest: Path, jobs: int, options: Sequence[str], watch: bool = False
) -> tuple[float, Memory | None]:
    """Run the command; return its seconds and, if asked to watch it, the memory that it held."""
    command = [
        sys.executable,
        "-m",
        "sprdiff",
        "batch",
        str(source),
        str(dest),
        "-j",
        str(jobs),
        "--quiet",
        *options,
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    memory = Memory(process.pid, dest) if watch else None
    if process.wait():
        raise SystemExit(f"sprdiff batch failed on {source}")
    seconds = time.perf_counter() - start
    if memory is not None:
        memory.stop()
    return seconds, memory


def throughput(folder: Path, source: Path, options: argparse.Namespace) -> list[list[str]]:
    """Measure images per second of whole runs; runs at different numbers of processes take turns."""
    count = sum(1 for _ in source.iterdir())
    times: dict[int, list[float]] = {jobs: [] for jobs in options.jobs}
    for repeat in range(options.repeats):
        for jobs in options.jobs:
            dest = folder / f"out-{jobs}-{repeat}"
            times[jobs].append(run(source, dest, jobs, options.encode)[0])
            shutil.rmtree(dest)
            print(f"-j {jobs}: {times[jobs][-1]:.2f} s", file=sys.stderr)
    medians = {jobs: statistics.median(seconds) for jobs, seconds in times.items()}
    first = medians[options.jobs[0]]
    return [
        [str(jobs), str(count), f"{seconds:.2f}", f"{count / seconds:.2f}", f"{first / seconds:.2f}"]
        for jobs, seconds in medians.items()
    ]


def flatness(folder: Path, options: argparse.Namespace) -> list[list[str]]:
    """Measure the memory of a run over many small pictures, in some tenths of its way."""
    source = write_small(folder / "small", options.small)
    jobs = options.jobs[-1]
    _, memory = run(source, folder / "out-small", jobs, ["-q", "20"], watch=True)
    assert memory is not None
    rows = []
    for tenth in (1, 2, 5, 8, 10):
        limit = options.small * tenth / 10
        held = [size for done, size in memory.samples if limit - options.small / 10 < done <= limit]
        if held:
            rows.append(
                [f"{limit:.0f}", f"{max(held) / 2**20:.0f}", f"{statistics.median(held) / 2**20:.0f}"]
            )
    return rows


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="photographs (default: made-up ones)")
    parser.add_argument("--photos", type=int, default=0, help="how many (default: all of the folder, or 300)")
    parser.add_argument("--small", type=int, default=10_000, help="small pictures for the memory; 0: none")
    parser.add_argument("--jobs", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="runs at each number of processes")
    parser.add_argument(
        "--encode", nargs="*", default=["-q", "50"], help="options of the runs, after --encode"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_arguments(argv)
    print(f"{processor()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.folder is None:
            source = write_photos(folder / "photos", options.photos or 300)
        else:
            source = link_photos(options.folder, folder / "photos", options.photos)
        print_table(
            ("processes", "images", "seconds", "images/s", "speedup"), throughput(folder, source, options)
        )
        if options.small:
            headings = ("images done", "peak MiB in this tenth", "median MiB in this tenth")
            print_table(headings, flatness(folder, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
