"""Measures time and memory of the codec on this machine.

    python benchmarks/speed.py [--image FILE] [--large 12500x8000] [--threads N] [--parts]

Prints Markdown tables: a 768x512 picture with the networks loaded and as whole processes; then 1, 4 and 16
megapixels and one large picture, each in a process of its own whose peak memory is read at its end. Pictures
are smooth synthetic texture unless a file is given, so no data is needed.

With ``--parts`` instead: the time of each part of encoding and decoding the small picture, on one thread and
on two. Processor time is what one thread would take on a machine with nothing else to do; it is given because
wall time says little on a busy one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Size = tuple[int, int]

SMALL = (768, 512)
LARGE = (12500, 8000)
SQUARES = ((1000, 1000), (2000, 2000), (4000, 4000))
STRIP = 256
REPEATS = 7
PROCESS_REPEATS = 5
NUMPY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def texture(width: int, start: int, stop: int) -> NDArray[np.uint8]:
    """Return the rows from start to stop of a picture of any size, uint8 [rows, width, 3]: waves of three
    lengths."""
    y, x = np.arange(start, stop, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    channels = []
    for phase in (0.0, 1.1, 2.3):
        value = 128 + 60 * np.sin(x / 211 + phase) * np.cos(y / 173)
        value += 30 * np.sin(x / 37 - y / 51 + phase) + 15 * np.cos(x / 9 + phase) * np.sin(y / 11)
        channels.append(np.clip(value, 0, 255).astype(np.uint8))
    return np.stack(channels, -1)


def write_texture(path: Path, width: int, height: int) -> None:
    """Write the texture as binary PPM, strip by strip, so that a picture of any size needs little memory."""
    with open(path, "wb") as file:
        file.write(f"P6\n{width} {height}\n255\n".encode())
        for start in range(0, height, STRIP):
            file.write(texture(width, start, min(start + STRIP, height)).tobytes())


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median wall time of ``repeats`` calls, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes.

    On Linux from VmHWM: ``ru_maxrss`` outlives exec there: a child would report its parent's peak if higher.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def child(task: str, source: Path, target: Path, options: argparse.Namespace) -> None:
    """Encode or decode one file in a measured process; print seconds and peak bytes as JSON."""
    from sprdiff import Codec

    codec = Codec(weights=options.weights, threads=options.threads)
    # Loads the networks, which would blur how time grows with size.
    codec.decode(codec.encode(Image.fromarray(texture(SMALL[0], 0, SMALL[1])), quality=options.quality))
    start = time.perf_counter()
    if task == "encode":
        target.write_bytes(codec.encode(source, quality=options.quality))
    else:
        codec.decode(source.read_bytes(), realism=options.realism)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": peak_memory()}))


def call_child(task: str, source: Path, target: Path, options: argparse.Namespace) -> tuple[float, int]:
    """Return the seconds and peak bytes of one task in a process of its own."""
    command = [sys.executable, __file__, "--child", task, str(source), str(target), *codec_options(options)]
    command += ["--quality", str(options.quality), "--realism", str(options.realism)]
    if options.threads:
        command += ["--threads", str(options.threads)]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    return float(result["seconds"]), int(result["peak"])


def codec_options(options: argparse.Namespace) -> list[str]:
    return ["--weights", str(options.weights)] if options.weights else []


def command_line() -> list[str]:
    """Return the installed ``sprdiff`` beside this Python, or its entry point when it runs from a
    checkout."""
    tool = shutil.which("sprdiff", path=str(Path(sys.executable).parent))
    return [tool] if tool else [sys.executable, "-c", "import sys, sprdiff.cli; sys.exit(sprdiff.cli.main())"]


def measure_small(folder: Path, options: argparse.Namespace) -> list[list[str]]:
    """Measure encoding and decoding of one small picture with the networks loaded."""
    from sprdiff import Codec

    image = Image.fromarray(texture(SMALL[0], 0, SMALL[1]))
    if options.image:
        image = Image.open(options.image).convert("RGB")
    codec = Codec(weights=options.weights, threads=options.threads)
    data = codec.encode(image, quality=options.quality)
    (folder / "small.sprd").write_bytes(data)
    name = f"{image.width}x{image.height}"
    tasks: dict[str, Callable[[], object]] = {
        f"encode {name}, quality {options.quality:g}": lambda: codec.encode(image, quality=options.quality),
        f"encode {name}, target {options.bpp:g} bpp": lambda: codec.encode(image, bpp=options.bpp),
        f"decode {name}, default": lambda: codec.decode(data),
        f"decode {name}, realism 1": lambda: codec.decode(data, realism=1.0),
        f"decode {name}, realism 0": lambda: codec.decode(data, realism=0.0),
    }
    rows = []
    for task, call in tasks.items():
        rows.append([task, f"{median_seconds(call, REPEATS):.3f}", f"median of {REPEATS}, networks loaded"])
    return rows


Times = dict[str, list[tuple[float, float]]]
"""Wall and processor seconds of every call of a part."""


@contextmanager
def clocked(times: Times, part: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    times.setdefault(part, []).append((time.perf_counter() - wall, time.process_time() - processor))


def measure_parts(options: argparse.Namespace, threads: int) -> list[list[str]]:
    """Measure each graph of a weights folder, the entropy coder, and the whole of encoding and decoding."""
    from sprdiff.loading import load_runtime

    runtime, times = load_runtime(options.weights, threads), Times()
    image = Image.fromarray(texture(SMALL[0], 0, SMALL[1]))
    if options.image:
        image = Image.open(options.image).convert("RGB")
    pixels, level = np.asarray(image), round(options.quality * 255 / 100)
    run, size = runtime._sessions.run, pixels.shape[:2]

    def clocked_run(graph: str, *arguments: Any, **named: Any) -> Any:
        with clocked(times, f"graph {graph}"):
            return run(graph, *arguments, **named)

    runtime._sessions.run = clocked_run  # type: ignore[method-assign]
    realism, steps = runtime.manifest.dials(level, None, None)
    dials = {
        "realism 0": (0.0, 1),
        "default": (realism, steps),
        "default, one evaluation more": (realism, steps + 1),
    }
    for _ in range(REPEATS + 1):
        with clocked(times, "encode"):
            y, z = runtime.analyse(pixels)
            with clocked(times, "entropy encoder"):
                stream = runtime.entropy.encode(y, z, level).stream
        for name, (share, count) in dials.items():
            with clocked(times, f"decode, {name}"):
                with clocked(times, "entropy decoder"):
                    exact = runtime.entropy.decode(stream, y.shape[1:], level)
                runtime.decode(exact, level=level, realism=share, steps=count, size=size, dtype=np.uint8)
    rows = []
    for part, calls in times.items():
        wall, processor = (statistics.median(values) for values in zip(*calls[1:], strict=True))
        rows.append([part, str(threads), f"{wall:.3f}", f"{processor:.3f}"])
    return rows


def measure_process(folder: Path, options: argparse.Namespace) -> list[list[str]]:
    """Measure ``sprdiff decode`` as a user sees it, from the start of the interpreter to the picture on disk.
    It needs small.sprd."""
    source, results = folder / "small.sprd", iter(range(PROCESS_REPEATS + 1))
    tool, extra = command_line(), codec_options(options)

    def decode() -> None:
        # A new name each time: the tool refuses to overwrite.
        command = [*tool, "decode", str(source), str(folder / f"decoded{next(results)}.png"), *extra]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    seconds = median_seconds(decode, PROCESS_REPEATS)
    return [["`sprdiff decode`, whole process", f"{seconds:.3f}", f"median of {PROCESS_REPEATS}"]]


def measure_large(folder: Path, sizes: Sequence[Size], options: argparse.Namespace) -> list[list[str]]:
    """Return one row per size: seconds and peak memory of encoding and decoding, each in its own process."""
    rows = []
    for width, height in sizes:
        megapixels = width * height / 1e6
        picture, file = folder / "large.ppm", folder / "large.sprd"
        write_texture(picture, width, height)
        row = [f"{width}x{height}", f"{megapixels:g}"]
        for task, source in (("encode", picture), ("decode", file)):
            seconds, peak = call_child(task, source, file, options)
            row += [f"{seconds:.2f}", f"{seconds / megapixels:.3f}", f"{peak / 2**20:.0f}"]
        picture.unlink()
        print(f"{row[0]} done", file=sys.stderr)
        rows.append(row)
    return rows


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [headings, ["---"] * len(headings), *rows]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")


def processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def size(text: str) -> Size:
    width, height = text.lower().split("x")
    return int(width), int(height)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, help="small picture to measure (default: texture of 768x512)")
    parser.add_argument("--weights", type=Path, help="weights folder (default: the shipped ones)")
    parser.add_argument("--threads", type=int, help="threads of the codec (default: its own choice)")
    parser.add_argument("--quality", type=float, default=50.0, help="quality 0-100 (default 50)")
    parser.add_argument("--bpp", type=float, default=0.02, help="target of the second encode (default 0.02)")
    parser.add_argument("--realism", type=float, default=1.0, help="realism of the large decodes (default 1)")
    parser.add_argument("--large", type=size, default=LARGE, metavar="WxH", help="default 12500x8000")
    parser.add_argument("--no-large", action="store_true", help="leave the large picture out")
    parser.add_argument("--small-only", action="store_true", help="measure the small picture only")
    parser.add_argument("--parts", action="store_true", help="time each part of the small picture instead")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_arguments(argv)
    if options.child:
        task, source, target = options.child
        child(task, Path(source), Path(target), options)
        return 0
    if options.parts and not options.threads:
        for count in ("1", "2"):  # in processes of their own: numpy's threads are settled when it is loaded
            command = [
                sys.executable,
                __file__,
                *(sys.argv[1:] if argv is None else argv),
                "--threads",
                count,
            ]
            subprocess.run(command, check=True, env=os.environ | dict.fromkeys(NUMPY_THREADS, count))
        return 0
    threads = options.threads or "default"
    print(f"{processor()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, threads: {threads}\n")
    if options.parts:
        print_table(
            ("part", "threads", "seconds", "processor seconds"), measure_parts(options, options.threads)
        )
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = measure_small(folder, options) + measure_process(folder, options)
        print_table(("task", "seconds", "how"), rows)
        if not options.small_only:
            sizes = [*SQUARES] if options.no_large else [*SQUARES, options.large]
            columns = ("encode s", "s/MP", "peak MiB", "decode s", "s/MP", "peak MiB")
            print_table(("picture", "MP", *columns), measure_large(folder, sizes, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
