"""Fixtures of the browser tests of the viewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serve_helpers import running
from sprdiff.viewer.bundle import make_bundle
from sprdiff.viewer.page import write_site
from viewer_helpers import Viewer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running() as found:
        yield f"{found}view/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page as files for any web server."""
    folder = tmp_path_factory.mktemp("site")
    write_site(folder, make_bundle())
    return folder


@pytest.fixture(scope="module")
def viewer(browser: Browser, address: str) -> Iterator[Viewer]:
    """Return one page for all tests that do not need a fresh one, because it loads for a while."""
    found = Viewer(browser, address)
    found.ready()
    yield found
    complaints, foreign = (
        found.complaints,
        [url for url in found.requests if not url.startswith((address, "blob:"))],
    )
    found.close()
    assert complaints == [] and foreign == []
