"""Tests of the page of ``sprdiff serve`` in a real browser, Debian's Chromium: a photograph goes in, a file
and a picture come out."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import sprdiff
from browser_helpers import DESK, PHONE, Visit
from conftest import photo
from desk_helpers import give, saved_by, settled, size
from serve_helpers import CODEC, jpeg, running, saved
from sprdiff.serve.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FileChooser, Locator


pytestmark = pytest.mark.services

PATIENCE = 60_000
PHOTO = jpeg(288, 432, quality=92)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(Settings(max_upload=500_000)) as found:
        yield found


@pytest.fixture
def desk(browser: Browser, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address, DESK)
    visit.page.set_default_timeout(PATIENCE)
    yield visit
    visit.page.close()


def test_a_photo_becomes_a_file_and_a_picture(desk: Visit, address: str, tmp_path: Path) -> None:
    give(desk, PHOTO)
    target = int(desk.page.locator("#max-bytes").input_value())
    assert target == round(0.02 * 288 * 432 / 8)
    name, data = saved_by(desk, "#save-sprd", tmp_path)
    assert name == "holiday.sprd" and data == CODEC.encode(PHOTO, max_bytes=target)
    assert size(desk) == len(data) <= target
    name, picture = saved_by(desk, "#save-png", tmp_path)
    with Image.open(io.BytesIO(picture)) as image:
        assert name == "holiday.png" and np.array_equal(np.asarray(image), np.asarray(CODEC.decode(data)))
    facts = desk.page.locator("#facts").inner_text()
    assert f"{8 * len(data) / (288 * 432):.4f}" in facts and "432 × 288" in facts
    assert desk.page.locator(".tag.left").inner_text().startswith("Original: ")
    assert desk.page.locator(".tag.right").inner_text() == f"SPRDiff: {len(data)} bytes"
    assert f"{len(data)} bytes" in desk.page.locator("[role=status]").inner_text()
    assert "partly invented" in desk.page.locator(".warning").inner_text()
    assert desk.complaints == []
    assert [url for url in desk.requests if not url.startswith((address, f"blob:{address}"))] == []


def test_both_pictures_are_drawn_in_one_place(desk: Visit) -> None:
    give(desk, PHOTO)
    sizes = desk.page.eval_on_selector_all(
        "#frame img", "all => all.map(i => [i.naturalWidth, i.naturalHeight])"
    )
    boxes = [desk.page.locator(f"#frame img.{side}").bounding_box() for side in ("left", "right")]
    assert sizes == [[432, 288], [432, 288]] and boxes[0] == boxes[1] and boxes[0] is not None
    assert boxes[0]["width"] / boxes[0]["height"] == pytest.approx(1.5, abs=0.01)


def test_fewer_bytes_by_keyboard(desk: Visit) -> None:
    give(desk, PHOTO)
    before, slider = size(desk), desk.page.locator("#target")
    slider.focus()
    for _ in range(3):
        desk.page.keyboard.press("PageDown")
    settled(desk)
    target = int(desk.page.locator("#max-bytes").input_value())
    assert size(desk) <= target < before
    assert slider.get_attribute("aria-valuetext") == f"at most {target} bytes"
    bits = float(desk.page.locator("#bpp").input_value())
    assert bits == pytest.approx(8 * target / (288 * 432), abs=1e-4)


def test_bytes_and_bits_can_be_typed(desk: Visit) -> None:
    give(desk, PHOTO)
    desk.page.locator("#max-bytes").fill("150")
    settled(desk)
    assert 130 < size(desk) <= 150
    desk.page.locator("#bpp").fill("0.03")
    settled(desk)
    assert desk.page.locator("#max-bytes").input_value() == str(int(0.03 * 288 * 432 / 8))
    assert 150 < size(desk) <= 466
    desk.page.locator("#max-bytes").fill("")  # half-typed numbers are waited out
    settled(desk)
    assert 150 < size(desk) <= 466 and desk.complaints == []


def test_a_target_below_the_smallest_file_gives_the_smallest(desk: Visit) -> None:
    give(desk, PHOTO)
    desk.page.locator("#max-bytes").fill("1")
    settled(desk)
    smallest = size(desk)
    assert smallest == len(CODEC.encode(PHOTO, max_bytes=smallest))
    with pytest.raises(sprdiff.TargetError):
        CODEC.encode(PHOTO, max_bytes=smallest - 1)
    assert desk.page.locator("#max-bytes").input_value() == str(smallest)
    assert desk.complaints == []


def test_the_realism_dial_shows_what_the_service_decodes(desk: Visit, tmp_path: Path) -> None:
    give(desk, PHOTO)
    _, data = saved_by(desk, "#save-sprd", tmp_path)
    dial = desk.page.locator("#realism")
    dial.focus()
    for key in ("Home", "ArrowRight", "PageUp"):
        desk.page.keyboard.press(key)
        settled(desk)
        realism = float(dial.input_value())
        _, picture = saved_by(desk, "#save-png", tmp_path)
        with Image.open(io.BytesIO(picture)) as image:
            assert np.array_equal(np.asarray(image), np.asarray(CODEC.decode(data, realism=realism)))
        assert (
            desk.page.locator(".tag.right").inner_text()
            == f"SPRDiff, realism {realism:.2f}: {len(data)} bytes"
        )
    assert "encode?" not in "".join(desk.requests[-3:])


def test_a_dial_that_moves_on_leaves_the_last_place(desk: Visit) -> None:
    give(desk, PHOTO)
    dial = desk.page.locator("#realism")
    for place in range(20, -1, -1):
        dial.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(place / 20))
        desk.page.wait_for_timeout(30 if place % 4 else 200)
    settled(desk)
    assert desk.page.locator(".tag.right").inner_text().startswith("SPRDiff, realism 0.00")
    assert desk.complaints == []


@pytest.mark.parametrize("codec", ["JPEG", "WebP", "AVIF"])
def test_a_baseline_of_the_same_bytes(desk: Visit, codec: str) -> None:
    give(desk, PHOTO)
    choice = desk.page.locator(f"input[value={codec.lower()}]")
    choice.check(force=True)
    desk.page.locator(".tag.left").filter(has_text=codec).wait_for()
    tag = desk.page.locator(".tag.left").inner_text()
    count = int(re.sub(r"\D", "", tag))
    said = desk.page.locator("#baseline").inner_text()
    assert (
        f"{codec}: {count} bytes, quality" in said if count <= size(desk) else "cannot be that small" in said
    )
    desk.page.locator("input[value=original]").check(force=True)
    desk.page.locator(".tag.left").filter(has_text="Original").wait_for()
    assert not desk.page.locator("#baseline").is_visible() and desk.complaints == []


def test_a_baseline_that_cannot_be_that_small_is_told_with_its_bytes(desk: Visit) -> None:
    give(desk, PHOTO)
    desk.page.locator("#max-bytes").fill("60")
    settled(desk)
    desk.page.locator("input[value=jpeg]").check(force=True)
    said = desk.page.locator("#baseline")
    said.filter(has_text="JPEG cannot be that small: its smallest file has").wait_for()
    assert int(re.findall(r"has (\d+) bytes", said.inner_text())[0]) > 60
    assert desk.complaints == []


def test_the_slider_between_the_pictures(desk: Visit) -> None:
    give(desk, PHOTO)
    slider, frame = desk.page.locator("#split"), desk.page.locator("#frame")
    slider.focus()
    for _ in range(20):
        desk.page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "40"
    box, divider = frame.bounding_box(), desk.page.locator(".divider").bounding_box()
    assert box is not None and divider is not None
    assert divider["x"] + divider["width"] / 2 == pytest.approx(box["x"] + 0.4 * box["width"], abs=1.5)
    desk.page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    assert float(slider.input_value()) == pytest.approx(75, abs=1.5)


def test_an_sprd_file_opens_alone(desk: Visit, tmp_path: Path) -> None:
    data = CODEC.encode(PHOTO, quality=30)
    give(desk, data, "sent.sprd", "application/octet-stream")
    assert size(desk) == len(data) and desk.page.locator(".tag.right").is_visible()
    for hidden in ("#size", "#versus", "#split", ".tag.left"):
        assert not desk.page.locator(hidden).is_visible()
    name, kept = saved_by(desk, "#save-sprd", tmp_path)
    assert (name, kept) == ("sent.sprd", data)
    give(desk, PHOTO)  # and a photo after it
    assert desk.page.locator("#size").is_visible() and desk.complaints == []


def drop(target: Locator, data: bytes, name: str) -> None:
    target.evaluate(
        """(target, [bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            const about = { dataTransfer: transfer, bubbles: true, cancelable: true };
            for (const kind of ["dragover", "drop"]) target.dispatchEvent(new DragEvent(kind, about));
        }""",
        [list(data), name],
    )


def test_dropping_and_pasting(desk: Visit) -> None:
    drop(desk.page.locator("#drop"), jpeg(64, 96), "dropped.jpg")
    settled(desk)
    assert "96 × 64" in desk.page.locator("#facts").inner_text()
    desk.page.evaluate(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
            window.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
        }""",
        list(saved(Image.fromarray(photo(80, 120)), "PNG")),
    )
    settled(desk)
    assert "120 × 80" in desk.page.locator("#facts").inner_text() and desk.complaints == []


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_files_are_chosen_by_keyboard(browser: Browser, address: str, key: str) -> None:
    visit = Visit(browser, address, DESK)
    choosers: list[FileChooser] = []
    visit.page.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # long before the key: the browser has to be told first
    visit.page.reload()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press(key)
    while not choosers:
        visit.page.wait_for_timeout(50)
    choosers[0].set_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(64, 96)})
    visit.page.locator("#save-png[href]").wait_for(timeout=PATIENCE)
    assert (
        visit.page.evaluate("document.activeElement.id") == "realism"
    )  # not lost with the control that went
    visit.page.close()


def test_a_format_that_browsers_do_not_show(desk: Visit) -> None:
    give(desk, saved(Image.fromarray(photo(96, 192)), "TIFF"), "scan.tif", "image/tiff")
    assert "192 × 96" in desk.page.locator("#facts").inner_text()
    assert "cannot show the original" in desk.page.locator("#remark").inner_text()
    box = desk.page.locator("#frame").bounding_box()
    assert box is not None and box["width"] / box["height"] == pytest.approx(2, abs=0.02)
    assert not desk.page.locator("#split").is_visible()


def test_errors_are_one_sentence(desk: Visit) -> None:
    alert = desk.page.locator("[role=alert]")
    for name, data, words in (
        ("empty.jpg", b"", "The file is empty."),
        ("large.jpg", bytes(500_001), "this service takes 500 kB"),
        ("text.jpg", b"no picture at all", "not an image"),
        ("half.jpg", PHOTO[:3000], "damaged"),
        ("half.sprd", b"SPR\x20\x01", "truncated"),
    ):
        desk.page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})
        alert.filter(has_text=words).wait_for()
    give(desk, PHOTO)
    assert not alert.is_visible() and size(desk) > 0


def test_a_service_that_is_gone(browser: Browser) -> None:
    with running() as address:
        visit = Visit(browser, address, DESK)
        give(visit, jpeg(64, 96))
    visit.page.locator("#max-bytes").fill("100")
    visit.page.locator("[role=alert]").filter(has_text="cannot be reached").wait_for(timeout=PATIENCE)
    visit.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("shape", [(288, 432), (432, 288), (60, 900), (8, 8)])
def test_nothing_is_wider_than_a_phone(
    browser: Browser, address: str, scheme: str, shape: tuple[int, int]
) -> None:
    visit = Visit(browser, address, PHONE, scheme)
    visit.page.set_default_timeout(PATIENCE)
    widths = [visit.page.evaluate("document.documentElement.scrollWidth")]
    give(visit, jpeg(*shape))
    for summary in visit.page.locator("summary").all():
        summary.click()
    widths.append(visit.page.evaluate("document.documentElement.scrollWidth"))
    box = visit.page.locator("#frame").bounding_box()
    visit.page.close()
    assert max(widths) <= PHONE[0] and box is not None and box["x"] >= 0 and box["width"] <= PHONE[0]
    assert visit.complaints == []


def test_the_page_follows_the_colour_scheme(browser: Browser, address: str) -> None:
    def brightness(scheme: str) -> float:
        visit = Visit(browser, address, DESK, scheme)
        colour = visit.page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        visit.page.close()
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3

    assert brightness("light") > 200 > 80 > brightness("dark")


def test_every_control_has_a_name(desk: Visit) -> None:
    give(desk, PHOTO)
    unnamed = desk.page.eval_on_selector_all(
        "input, button, a",
        "all => all.filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length))"
        ".map(e => e.outerHTML)",
    )
    assert unnamed == []


def test_below_the_path_of_a_proxy(browser: Browser) -> None:
    # uvicorn is told the path that a proxy has taken off: a request with it is answered as one without.
    with running(root_path="/photos") as address:
        visit = Visit(browser, address, DESK)
        give(visit, jpeg(64, 96))
        assert visit.complaints == [] and size(visit) > 0
        visit.page.close()


def test_without_scripts_the_page_says_what_to_do(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert "sprdiff encode" in page.locator("noscript").inner_text()
    context.close()
