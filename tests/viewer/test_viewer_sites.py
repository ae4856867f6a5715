"""Tests of the page without a connection, over plain http, and on servers that lack something."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import photo
from serve_helpers import CODEC
from sprdiff.viewer.links import to_link
from viewer_helpers import TINY, Viewer, another, close_to, golden
from web_helpers import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = ("viewer_fixtures",)

pytestmark = pytest.mark.services


PHOTO = CODEC.encode(photo(288, 432), max_bytes=300)


def test_without_a_connection(browser: Browser, site: Path, tmp_path: Path) -> None:
    with served(site) as address:  # a server that sends no headers of its own
        viewer = Viewer(browser, address)
        assert "works without a connection" in viewer.ready()
    viewer.context.set_offline(True)
    viewer.page.reload()
    assert "threads" in viewer.ready()  # the service worker sends the headers
    viewer.give(("photo.sprd", PHOTO))
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))
    viewer.page.goto(to_link((TINY / "odd.sprd").read_bytes(), f"{address}/"))
    viewer.page.locator("#facts").filter(has_text="130 × 77").wait_for()
    viewer.settled()
    viewer.turn("#realism", 1)
    assert close_to(viewer.saved(tmp_path), golden("odd", 1))
    viewer.close()


def test_over_plain_http(browser: Browser, site: Path, tmp_path: Path) -> None:
    # A name that is not this machine's: browsers take localhost for secure.
    other = another(browser, "--host-resolver-rules=MAP plain.test 127.0.0.1")
    with served(site) as address:
        viewer = Viewer(other, address.replace("127.0.0.1", "plain.test"))
        said = viewer.ready()
        assert "on one thread" in said and "plain http" in said
        viewer.give(("photo.sprd", PHOTO))
        assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))
        viewer.close()
    other.close()


@pytest.mark.parametrize("harm", ["weights.json", "weights", "onnxruntime.wasm.zlib"])
def test_a_server_that_lacks_or_damages_something(
    browser: Browser, site: Path, harm: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(site, tmp_path / "site")
    words = {"weights": "damaged on their way", "weights.json": "no weights for it"}.get(
        harm, "cannot be loaded"
    )
    if harm == "weights":
        (path,) = folder.glob("weights-*.bin")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        (folder / harm).unlink()
    with served(folder) as address:
        viewer = Viewer(browser, address)
        viewer.complaint(words)
        viewer.give(("photo.sprd", PHOTO), wait=False)  # and again for whoever tries
        viewer.complaint(words)
        viewer.close()


def test_new_weights_take_the_place_of_the_old(browser: Browser, site: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(site, tmp_path / "site")
    with served(folder) as address:
        viewer = Viewer(browser, address)
        viewer.ready()
        (path,) = folder.glob("weights-*.bin")
        index = json.loads((folder / "weights.json").read_text())
        renamed = path.rename(folder / "weights-other.bin").name
        (folder / "weights.json").write_text(json.dumps({**index, "file": renamed}))
        viewer.page.reload()
        viewer.ready()
        script = "async () => (await (await caches.open('sprdiff-weights')).keys()).map(r => r.url)"
        kept = [url.rpartition("/")[2] for url in viewer.page.evaluate(script) if url.endswith(".bin")]
        viewer.close()
    assert kept == ["weights-other.bin"]


def test_without_scripts_the_page_says_what_to_do(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert "sprdiff decode" in page.locator("noscript").inner_text()
    context.close()


def test_the_service_links_to_it(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address.removesuffix("view/"))
    page.locator("summary").filter(has_text="without this page").click()
    page.locator("a[href='view/']").click()
    page.wait_for_url(address)
    page.close()
