"""Settings of all tests: property tests draw the same examples every time, slow tests run on request."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: give --slow"))


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A made-up photograph, uint8 [height, width, 3]: slow colours, some edges, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(9 * (x * a + y * b) + c) for a, b, c in rng.uniform(-1, 1, (3, 3))]
    edges = ((x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.04)[..., None] * rng.uniform(-60, 60, 3)
    picture = 128 + 70 * np.stack(waves, -1) + edges + rng.normal(0, 3, (height, width, 3))
    pixels: NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels
