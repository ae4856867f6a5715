"""Loads ``sprdiff serve`` with many clients: latency, throughput and memory, with every answer compared.

    python benchmarks/serve.py                        # starts a server of its own; 50 clients, 60 seconds
    python benchmarks/serve.py --clients 8 --seconds 10 --size 512x768
    python benchmarks/serve.py --url http://127.0.0.1:8000/ --pid 4711

Half of the requests encode a photograph (made up, as JPEG), half decode its file. What the service must
answer is computed here first, by the package itself with as many threads; any other bytes or pixels count as
a wrong answer. Each client waits for its answer before it asks again, and waits as told when it is refused
(429). Memory is that of the server's process, each quarter of the time at its end. Prints Markdown; the exit
status is 1 when an answer was wrong or failed, or when memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

import sprdiff

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import photo

GROWTH = 1.05
"""The growth from the end of the second quarter to the end of the last one that is allowed; more is a
leak."""
Quarters = list[float]


@dataclass(frozen=True)
class Case:
    """A request and its one right answer."""

    path: str
    body: bytes
    expected: bytes


@dataclass
class Seen:
    """What happened: seconds by path, statuses, and how many answers were not the expected bytes."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int | str] = field(default_factory=Counter)
    wrong: int = 0


def make_cases(sizes: list[tuple[int, int]]) -> list[Case]:
    """Make two cases for each (height, width)."""
    cases = []
    for seed, (height, width) in enumerate(sizes):
        stream = io.BytesIO()
        Image.fromarray(photo(height, width, seed)).save(stream, "JPEG", quality=92)
        data = sprdiff.encode(stream.getvalue(), bpp=0.02)
        cases += [
            Case("encode?bpp=0.02", stream.getvalue(), data),
            Case("decode", data, _pixels(sprdiff.decode(data))),
        ]
    return cases


def _pixels(image: Image.Image) -> bytes:
    return np.asarray(image.convert("RGB")).tobytes()


async def client(address: str, cases: Iterator[Case], until: float, seen: Seen) -> None:
    """Ask, wait and compare until the time is over."""
    async with httpx.AsyncClient(base_url=address, timeout=300) as http:
        while time.perf_counter() < until:
            case = next(cases)
            begin = time.perf_counter()
            try:
                answer = await http.post(case.path, content=case.body)
            except httpx.HTTPError as error:
                seen.statuses[type(error).__name__] += 1
                continue
            seen.statuses[answer.status_code] += 1
            if answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["Retry-After"]))
            elif answer.status_code == 200:
                seen.seconds.setdefault(case.path.partition("?")[0], []).append(time.perf_counter() - begin)
                seen.wrong += not await asyncio.to_thread(right, case, answer.content)


def right(case: Case, content: bytes) -> bool:
    """Whether it is the expected answer; pictures are compared as pixels, because PNG files may differ by
    library."""
    if case.path == "decode":
        with Image.open(io.BytesIO(content)) as image:
            content = _pixels(image)
    return content == case.expected


async def load(
    address: str, cases: list[Case], clients: int, seconds: float, pid: int
) -> tuple[Seen, Quarters]:
    """Run all clients at once; return the server's resident MB at the end of each quarter."""
    seen, memory = Seen(), []
    turns = itertools.cycle(cases)
    until = time.perf_counter() + seconds
    work = [asyncio.create_task(client(address, turns, until, seen)) for _ in range(clients)]
    for _ in range(4):
        await asyncio.sleep(seconds / 4)
        memory.append(resident(pid))
    await asyncio.gather(*work)
    return seen, memory


def resident(pid: int) -> float:
    """Return the MB of memory that a process holds."""
    fields = Path(f"/proc/{pid}/statm").read_text("utf-8").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def own_server(options: list[str]) -> Iterator[tuple[str, int]]:
    """Start a server and stop it at the end; yield (address, process id)."""
    command = [sys.executable, "-m", "sprdiff", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "http://" not in line:
                raise SystemExit("the server did not start")
            yield next(word for word in line.split() if word.startswith("http://")), process.pid
        finally:
            process.terminate()


def table(seen: Seen, seconds: float) -> str:
    """Return latency and throughput, in Markdown."""
    lines = [
        "| request | answers | per second | median s | 90 % s | 99 % s | slowest s |",
        "|---|---|---|---|---|---|---|",
    ]
    for path, times in sorted(seen.seconds.items()):
        cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
        figures = [len(times) / seconds, cuts[49], cuts[89], cuts[98], max(times)]
        lines.append(f"| {path} | {len(times)} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", default="512x768,384x512", help="HEIGHTxWIDTH, with commas")
    parser.add_argument("--url", help="of a server that runs already; give --pid too")
    parser.add_argument("--pid", type=int)
    parser.add_argument("options", nargs="*", help="of sprdiff serve, after --")
    given = parser.parse_args()
    if (given.url is None) != (given.pid is None):
        parser.error("--url and --pid go together")
    sizes = [(int(h), int(w)) for h, w in (size.split("x") for size in given.size.split(","))]
    cases = make_cases(sizes)
    running = contextlib.nullcontext((given.url, given.pid)) if given.url else own_server(given.options)
    with running as (address, pid):
        before, begin = resident(pid), time.perf_counter()
        seen, memory = asyncio.run(load(address, cases, given.clients, given.seconds, pid))
        seconds = time.perf_counter() - begin
    print(f"{given.clients} clients, {seconds:.0f} s, pictures of {given.size} pixels\n")
    print(table(seen, seconds))
    statuses = ", ".join(f"{status}: {count}" for status, count in seen.statuses.items())
    print(f"\nStatuses: {statuses}. Wrong: {seen.wrong}.")
    print(f"Memory of the server, MB: {before:.0f} before, then {', '.join(f'{m:.0f}' for m in memory)}.")
    failed = sum(count for status, count in seen.statuses.items() if status not in (200, 429))
    return int(bool(seen.wrong or failed or memory[3] > GROWTH * memory[1]))


if __name__ == "__main__":
    sys.exit(main())
