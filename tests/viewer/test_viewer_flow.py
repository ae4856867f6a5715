"""Tests of the page with weights of its own: untrained ones of the preset nano, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import photo, with_dials
from sprdiff.codec import Codec
from sprdiff.imageio.open import Picture
from sprdiff.viewer.bundle import make_bundle
from sprdiff.viewer.page import write_site
from viewer_helpers import Viewer, another, close_to
from web_helpers import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.services
pytest_plugins = ("weights_fixture",)

CASES: dict[str, tuple[tuple[int, int], bool, dict[str, Any]]] = {
    "one pixel": ((1, 1), False, {}),
    "odd": ((77, 130), False, {"quality": 60.0}),
    "grey": ((100, 96), True, {"quality": 100.0}),
    "a third": ((300, 420), False, {"quality": 50.0, "scale": 3}),
    "several tiles": ((1100, 2100), False, {"quality": 30.0}),
}


@pytest.fixture(scope="module")
def weights(nano_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights with three evaluations and a realism below 1, because the page must use what the
    manifest says."""
    return with_dials(
        nano_weights, tmp_path_factory.mktemp("dials") / "nano", steps=3, realism=0.75, latest=0.9
    )


@pytest.fixture(scope="module")
def viewer(browser: Browser, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("site")
    write_site(folder, make_bundle(weights))
    with served(folder) as address:
        found = Viewer(browser, address)
        yield found
        complaints = found.complaints
        found.close()
    assert complaints == []


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_within_the_tolerance(viewer: Viewer, weights: Path, name: str, tmp_path: Path) -> None:
    (height, width), grey, options = CASES[name]
    codec = Codec(weights, threads=1)
    data = codec.encode(Picture(photo(height, width), grey, ()), **options)
    viewer.page.reload()
    viewer.give((f"{name}.sprd", data))
    assert viewer.page.locator("#realism").input_value() == "0.75"
    assert close_to(viewer.saved(tmp_path), codec.decode(data))
    for realism, seed in ((0, 0), (1, 2**64 - 1)):
        viewer.turn("#seed", seed)
        viewer.turn("#realism", realism)
        assert close_to(viewer.saved(tmp_path), codec.decode(data, realism=realism, seed=seed))


def test_heun(browser: Browser, nano_weights: Path, tmp_path: Path) -> None:
    weights = with_dials(nano_weights, tmp_path / "nano", steps=5, sampler="heun")
    write_site(tmp_path / "site", make_bundle(weights))
    codec = Codec(weights, threads=1)
    data = codec.encode(photo(200, 130), quality=50.0)
    with served(tmp_path / "site") as address:
        viewer = Viewer(browser, address)
        viewer.give(("photo.sprd", data))
        assert close_to(viewer.saved(tmp_path), codec.decode(data))
        viewer.close()


def test_a_graphics_processor(browser: Browser, weights: Path, tmp_path: Path) -> None:
    """Software plays a graphics processor here, which the page would refuse; its refusal is taken out."""
    write_site(tmp_path / "site", make_bundle(weights))
    worker = tmp_path / "site" / "worker.js"
    text = worker.read_text()
    assert "isFallbackAdapter" in text
    worker.write_text(text.replace("isFallbackAdapter", "isNothing"))
    codec = Codec(weights, threads=1)
    data = codec.encode(photo(200, 330), quality=50.0)
    other = another(
        browser, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"
    )
    with served(tmp_path / "site") as address:
        viewer = Viewer(other, address)
        assert "on the graphics processor" in viewer.ready()
        viewer.give(("photo.sprd", data))
        assert close_to(viewer.saved(tmp_path), codec.decode(data))
        viewer.close()
    other.close()
