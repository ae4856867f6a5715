"""Settings of all tests: property tests draw the same examples every time, and slow tests run on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from sprdiff.format.entropy import EntropyModel, Exact

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

settings.register_profile(
    "sprdiff",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sprdiff")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes too")
    parser.addoption("--services", action="store_true", help="run the tests marked services, and those only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
    wanted = bool(config.getoption("--services"))
    left_out = [item for item in items if ("services" in item.keywords) is not wanted]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test fail with --services, because everything must be there."""
    report = yield
    if report.skipped and item.config.getoption("--services") and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = (
            "failed",
            f"skipped, which --services does not allow: {report.longrepr}",
        )
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium, driven by playwright."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path is not None, f"no browser: none of {', '.join(BROWSERS)}; try apt-get install chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, which containers do; the pages are our own.
        found = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Make a photograph, uint8 [height, width, 3]: slow colours, some edges, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(9 * (x * a + y * b) + c) for a, b, c in rng.uniform(-1, 1, (3, 3))]
    edges = ((x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.04)[..., None] * rng.uniform(-60, 60, 3)
    picture = 128 + 70 * np.stack(waves, -1) + edges + rng.normal(0, 3, (height, width, 3))
    pixels: NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels


def with_dials(folder: Path, target: Path, **dials: object) -> Path:
    """Return the same weights with other defaults in their manifest."""
    shutil.copytree(folder, target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps(manifest | dials))
    return target


def one_cell(entropy: EntropyModel, value: int = 0) -> Exact:
    """Return what a decoder may know of a picture of 32x32 pixels."""
    from sprdiff.format.entropy import Exact

    y = np.full((entropy.y_channels, 1, 1), value, np.int32)
    return Exact(y, y, np.zeros_like(entropy.decode(b"", (1, 1), 0).h))
