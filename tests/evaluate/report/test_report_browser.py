"""Tests of the page in a real browser, Debian's Chromium: it asks for nothing, nothing in it fails, and it
works by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from browser_helpers import DESK, PHONE, Visit
from report_helpers import CODECS, RATES, keep_pictures, make_run
from sprdiff.evaluate.report import write

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.services

HOSTILE = "codec<img src=x onerror=alert(1)>@with-a-name-that-has-no-end-at-all-and-no-space-either=1"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    codecs = [*CODECS, HOSTILE]
    images = ["kodim01.png", "kodim02<b>.png"]
    make_run(folder, images=images, codecs=codecs, command="sprdiff eval " + "a-long-word" * 40)
    keep_pictures(folder, images, codecs, RATES)
    return write(folder).as_uri()


@pytest.fixture
def desk(browser: Browser, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address, DESK)
    yield visit
    visit.page.close()


def test_no_complaints_and_no_request_leaves_the_page(desk: Visit, address: str) -> None:
    outside = [url for url in desk.requests if url != address and not url.startswith("data:")]
    assert address in desk.requests and outside == []
    assert desk.complaints == []


def test_every_picture_is_drawn(desk: Visit) -> None:
    sizes = desk.page.eval_on_selector_all(
        ".shot img", "all => all.map(i => [i.naturalWidth, i.naturalHeight])"
    )
    assert len(sizes) == 2 * (1 + 4 * 2) and all(size == [192, 128] for size in sizes)


def test_the_slider_moves_by_keyboard(desk: Visit) -> None:
    scene = desk.page.locator(".scene").first
    slider = scene.locator("input[type=range]")
    slider.focus()
    edge = "frame => getComputedStyle(frame.querySelector('img.left')).clipPath"
    before = scene.locator(".frame").evaluate(edge)
    for _ in range(10):
        desk.page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "40"
    assert scene.locator(".frame").evaluate(edge) != before
    desk.page.keyboard.press("End")
    assert slider.input_value() == "100"
    frame, divider = scene.locator(".frame").bounding_box(), scene.locator(".divider").bounding_box()
    assert frame is not None and divider is not None
    assert divider["x"] + divider["width"] / 2 == pytest.approx(frame["x"] + frame["width"], abs=1)


def test_the_slider_follows_the_mouse(desk: Visit) -> None:
    scene = desk.page.locator(".scene").first
    scene.scroll_into_view_if_needed()
    frame = scene.locator(".frame").bounding_box()
    assert frame is not None
    desk.page.mouse.click(frame["x"] + frame["width"] * 0.25, frame["y"] + frame["height"] / 2)
    assert float(scene.locator("input[type=range]").input_value()) == pytest.approx(25, abs=1.5)


def test_sides_and_rate_can_be_chosen(desk: Visit) -> None:
    scene = desk.page.locator(".scene").first
    assert scene.locator(".tag.left").inner_text().startswith("sprdiff-tiny: ")
    assert scene.locator(".tag.right").inner_text().startswith("vvc: ")
    assert scene.locator(".shot:visible").count() == 1 + 4
    scene.locator("select.left").select_option("original")
    source = "image => image.src"
    original = scene.locator(".shot[data-key=original] img").evaluate(source)
    assert scene.locator(".frame img.left").evaluate(source) == original
    assert scene.locator(".tag.left").inner_text() == "original"
    scene.locator(".shot[data-key=c2]:visible").click()
    assert scene.locator(".tag.right").inner_text().startswith("jpeg: 30 bytes")
    scene.locator("select.rate").select_option("0.04 bpp")
    assert scene.locator(".tag.left").inner_text() == "original"
    assert scene.locator(".tag.right").inner_text().startswith("jpeg: 122 bytes")
    shown = scene.locator(".shot[data-key=c2]:visible img").evaluate(source)
    assert scene.locator(".frame img.right").evaluate(source) == shown


def test_a_codec_in_the_legend_stands_out(desk: Visit) -> None:
    button = desk.page.locator(".legend button").nth(1)
    button.focus()
    desk.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    faded = "parts => parts.map(p => p.id).filter(id => /-c\\d+$/.test(id))"
    assert not any(name.endswith("-c1") for name in desk.page.eval_on_selector_all(".faded", faded))
    assert desk.page.locator(".faded").count() == 4 * 3
    desk.page.keyboard.press("Enter")
    assert desk.page.locator(".faded").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(browser: Browser, address: str, scheme: str) -> None:
    visit = Visit(browser, address, PHONE, scheme)
    for details in visit.page.locator("summary").all():
        details.click()
    width = visit.page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    visit.page.close()
    assert max(width) <= PHONE[0]
    assert visit.complaints == []


def test_the_page_follows_the_colour_scheme(browser: Browser, address: str) -> None:
    def brightness(scheme: str) -> tuple[float, float]:
        visit = Visit(browser, address, DESK, scheme)
        read = (
            "e => { const c = getComputedStyle(e).%s.match(/[\\d.]+/g).map(Number); "
            "return (c[0] + c[1] + c[2]) / 3; }"
        )
        paper = visit.page.locator("body").evaluate(read % "backgroundColor")
        ink = visit.page.locator(".plot svg text").first.evaluate(read % "fill")
        visit.page.close()
        return paper, ink

    light, dark = brightness("light"), brightness("dark")
    assert light[0] > 200 > 80 > light[1]
    assert dark[0] < 80 < 200 < dark[1]


def test_without_scripts_the_pictures_are_still_there(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert not page.locator(".viewer").first.is_visible()
    assert page.locator(".shot").first.is_visible()
    context.close()
