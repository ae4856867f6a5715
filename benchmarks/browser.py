"""Measures how long the page takes for a picture in a real Chromium, without WebGPU: ``docs/browser.md`` has
the figures.

    python benchmarks/browser.py                          # the shipped weights, a picture of 768x512
    python benchmarks/browser.py --weights DIR PHOTO.jpg
    python benchmarks/browser.py --memory                 # what the largest picture takes (Linux)

Each run is a file of its own, from its choice to the painted picture, with the networks loaded. The first is
told apart, for it loads them. The page must be built (``make web``). The largest picture has no symbols but
those that cost nothing, on which memory does not depend.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from sprdiff.codec import Codec
from sprdiff.format.container import Header, pack_file
from sprdiff.viewer.bundle import make_bundle
from sprdiff.viewer.page import write_site

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from conftest import BROWSERS, photo
from web_helpers import served

PATIENCE = 600_000
HOW_LONG = "performance.getEntriesByName('decode').map(entry => entry.duration / 1000)"


def decoded(page: Page, data: bytes, realism: float, runs: int) -> list[float]:
    """Return the seconds of each run."""
    script = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }"
    page.evaluate("performance.clearMeasures()")
    for _ in range(runs):
        field = "#file" if page.locator("#drop").is_visible() else "#more"
        page.locator("#realism").evaluate(script, str(realism))
        upload: Any = {"name": "a.sprd", "mimeType": "", "buffer": data}
        page.set_input_files(field, upload)
        page.wait_for_timeout(300)
        page.locator("#save:enabled").wait_for(timeout=PATIENCE)
    times: list[float] = page.evaluate(HOW_LONG)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", nargs="?", type=Path, help="none: a drawn picture of 768x512")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--quality", type=float, help="none: 0.02 bits per pixel")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory of the largest picture")
    given = parser.parse_args()
    if given.memory:
        with tempfile.TemporaryDirectory() as folder:
            write_site(Path(folder), make_bundle(given.weights))
            measure_memory(Path(folder), largest(Codec(given.weights)))
        return
    picture = photo(512, 768) if given.photo is None else np.asarray(Image.open(given.photo).convert("RGB"))
    codec = Codec(given.weights)
    data = codec.encode(picture, quality=given.quality)
    bundle = make_bundle(given.weights)
    print(f"{picture.shape[1]}x{picture.shape[0]}, {len(data)} bytes; weights of {len(bundle.data)} bytes")
    with tempfile.TemporaryDirectory() as folder:
        write_site(Path(folder), bundle)
        measure(Path(folder), data, given.runs)


def largest(codec: Codec, side: int = 4096) -> bytes:
    """A file with as many pixels as the page shows, and no stream."""
    digest = codec.manifest.weights_hash
    return pack_file(Header(side, side, 100, 0, False, codec.manifest.preset_id, digest[:2]), b"", digest)


@contextmanager
def opened(site: Path) -> Iterator[Page]:
    """The page in a browser of its own, with threads."""
    path = next(filter(None, map(shutil.which, BROWSERS)))
    with served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page()
        page.goto(address)
        about = page.locator("#about")
        about.filter(has_text="without a connection").wait_for(timeout=PATIENCE)
        page.reload()  # from now on the service worker isolates the page, so it has threads
        about.filter(has_text="is ready").wait_for(timeout=PATIENCE)
        print(about.inner_text())
        yield page
        browser.close()


def measure_memory(site: Path, data: bytes) -> None:
    """Print the peak resident memory of the page's process, its worker included."""
    with opened(site) as page:
        print(f"before: {peak():.0f} MB", flush=True)
        page.set_input_files("#file", {"name": "a.sprd", "mimeType": "", "buffer": data})  # type: ignore[arg-type]
        page.locator("#save:enabled").wait_for(timeout=6 * PATIENCE)
        print(f"the largest picture: {peak():.0f} MB at most")


def peak() -> float:
    """The largest peak of resident memory of the renderers that this process started, in 10^6 bytes."""
    parents, peaks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            parents[int(folder.name)] = int(fields["PPid"])
            if b"type=renderer" in (folder / "cmdline").read_bytes():
                peaks[int(folder.name)] = 1024 * int(fields["VmHWM"].split()[0])
    return max(value for process, value in peaks.items() if os.getpid() in above(process, parents)) / 1e6


def above(process: int, parents: dict[int, int]) -> Iterator[int]:
    """The processes that a process descends from."""
    while process in parents:
        process = parents[process]
        yield process


def measure(site: Path, data: bytes, runs: int) -> None:
    """Print the seconds of both ends of the dial."""
    with opened(site) as page:
        for realism in (0.0, 1.0):
            first, *rest = decoded(page, data, realism, runs + 1)
            every = " ".join(f"{seconds:.2f}" for seconds in sorted(rest))
            print(
                f"realism {realism:g}: the first {first:.2f} s, "
                f"then median {statistics.median(rest):.2f} s of {every}"
            )


if __name__ == "__main__":
    main()
