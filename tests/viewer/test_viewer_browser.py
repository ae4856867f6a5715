"""Tests of the page that opens files, in Debian's Chromium: by file, packet, link and code, without a
connection, too."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zxingcpp
from PIL import Image

from bitstream_helpers import GOLDEN, load_golden_weights
from browser_helpers import PHONE
from conftest import photo
from serve_helpers import CODEC, jpeg
from sprdiff.format.container import Header, pack_file, parse_file
from sprdiff.imageio.xmp import source_info
from sprdiff.packets import from_packets, to_line, to_packets
from sprdiff.runtime.weights import GENERATION
from sprdiff.viewer.bundle import pack
from sprdiff.viewer.links import to_code, to_link
from viewer_helpers import TINY, Viewer, close_to, golden
from web_helpers import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FileChooser


pytestmark = pytest.mark.services
pytest_plugins = ("viewer_fixtures",)

WEB = Path(__file__).parents[2] / "web"
NAMES = sorted(json.loads((TINY / "golden.json").read_text()))
FORMAT = json.loads((GOLDEN / "golden.json").read_text())
PHOTO = CODEC.encode(photo(288, 432), max_bytes=300)


@pytest.mark.parametrize("weights", sorted(FORMAT["hashes"]))
def test_golden_files_of_the_format_decode_to_the_recorded_integers(
    browser: Browser, weights: str, tmp_path: Path
) -> None:
    shutil.copy(WEB / "build" / "browser" / "exact.mjs", tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html><link rel=icon href='data:,'>")
    arrays = {f"entropy/{name}": array for name, array in load_golden_weights(weights).items()}
    bundle = pack({"generation": GENERATION}, arrays)
    wanted = {name: file["sha256"] for name, file in FORMAT["files"].items() if file["weights"] == weights}
    files = {name: list((GOLDEN / f"{name}.sprd").read_bytes()) for name in wanted}
    with served(tmp_path) as address:
        page = browser.new_page()
        page.goto(address)
        script = "async ([bundle, files]) => (await import('./exact.mjs')).digests(bundle, files)"
        found = page.evaluate(script, [list(bundle.data), files])
        page.close()
    assert found == {name: {"whole": True, **digests} for name, digests in wanted.items()}


@pytest.mark.parametrize("name", NAMES)
def test_golden_pictures_are_within_the_tolerance(viewer: Viewer, name: str, tmp_path: Path) -> None:
    data = (TINY / f"{name}.sprd").read_bytes()
    viewer.give((f"{name}.sprd", data))
    for realism in (1, 0):
        viewer.turn("#realism", realism)
        picture = viewer.saved(tmp_path)
        assert picture.mode == golden(name, realism).mode and close_to(picture, golden(name, realism))
        assert picture.info.get("xmp") == source_info(realism).get("xmp")
    assert viewer.page.locator("#bytes").inner_text() == str(len(data))
    header = parse_file(data).header
    assert f"{header.width} × {header.height}" in viewer.facts()
    assert (
        f"{8 * len(data) / (header.width * header.height):.4f}"
        in viewer.page.locator("#summary").inner_text()
    )


def test_what_is_shown_is_what_is_saved(viewer: Viewer, tmp_path: Path) -> None:
    viewer.give(("photo.sprd", PHOTO))
    for dial, value in (("#realism", 0.35), ("#seed", 4711), ("#realism", 1)):
        viewer.turn(dial, value)
        assert (viewer.shown() == viewer.saved(tmp_path)).all()
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=1, seed=4711))
    viewer.turn("#realism", 0.35)
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=0.35, seed=4711))
    viewer.turn("#seed", 0)
    viewer.turn("#realism", 1)


def test_seeds_that_are_none_are_not_acted_upon(viewer: Viewer) -> None:
    viewer.give(("photo.sprd", PHOTO))
    seed = viewer.page.locator("#seed")
    for wrong in ("", "-1", "1.5", "nine", str(2**64)):
        seed.fill(wrong)
        assert not seed.evaluate("e => e.validity.valid")
    viewer.turn("#seed", 0)
    viewer.page.locator("#another").click()
    viewer.settled()
    assert seed.input_value() == "1" and seed.evaluate("e => e.validity.valid")
    viewer.turn("#seed", 0)


def test_a_dial_that_moves_on_leaves_the_last_place(viewer: Viewer, tmp_path: Path) -> None:
    viewer.give(("photo.sprd", PHOTO), wait=False)
    for place in range(20, -1, -1):
        script = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }"
        viewer.page.locator("#realism").evaluate(script, str(place / 20))
        viewer.page.wait_for_timeout(30 if place % 4 else 250)
    viewer.settled()
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=0))
    viewer.turn("#realism", 1)


def test_a_link_is_the_photograph(viewer: Viewer, address: str, tmp_path: Path) -> None:
    before = len(viewer.requests)
    viewer.page.goto(to_link(PHOTO, address))
    viewer.settled()
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))
    fragment = to_link(PHOTO, address).partition("#")[2]
    assert not [url for url in viewer.requests[before:] if fragment in url and not url.startswith(address)]
    odd = (TINY / "odd.sprd").read_bytes()
    viewer.page.goto(to_link(odd, address))  # the same page: only its fragment changes
    viewer.page.locator("#facts").filter(has_text="130 × 77").wait_for()
    viewer.settled()
    viewer.turn("#realism", 1)
    assert close_to(viewer.saved(tmp_path), golden("odd", 1))


def test_a_code_opens_the_photograph(viewer: Viewer, address: str, tmp_path: Path) -> None:
    with Image.open(io.BytesIO(to_code(PHOTO, address))) as code:
        (found,) = zxingcpp.read_barcodes(code)
    viewer.page.goto(found.text)
    viewer.settled()
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))


def test_links_that_are_cut(viewer: Viewer, address: str) -> None:
    link = to_link(PHOTO, address)
    for lost in (100, 101, 102, 103):  # a link may end inside a group of four characters, too
        viewer.page.goto(link[:-lost])
        assert "damaged or cut off" in viewer.complaint("check does not match")
    viewer.page.locator("#partial").click()
    viewer.settled()
    assert "% of the symbols" in viewer.facts() and not viewer.page.locator("#alert").is_visible()
    viewer.page.goto(f"{address}#nothing-of-the-kind")
    viewer.complaint("does not hold a photograph")


def test_the_beginning_of_a_file(viewer: Viewer, tmp_path: Path) -> None:
    cut = PHOTO[: len(PHOTO) // 2]
    viewer.give(("cut.sprd", cut), wait=False)
    viewer.complaint("check does not match")
    viewer.page.locator("#partial").click()
    viewer.settled()
    wanted = CODEC.decode(cut, realism=viewer.realism(), partial=True)
    assert close_to(viewer.saved(tmp_path), wanted)
    assert f"{int(100 * wanted.info['known'])} % of the symbols" in viewer.facts()
    assert "part of the file" in viewer.page.locator("#remark").inner_text()


def test_packets_with_losses(viewer: Viewer, tmp_path: Path) -> None:
    packets = to_packets(PHOTO, payload=60, parity=2)
    arrived = [packet for number, packet in enumerate(packets) if number not in (1, 4)]
    viewer.give(*((f"{i}.pkt", packet) for i, packet in enumerate(reversed(arrived))))
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))
    assert not viewer.page.locator("#remark").is_visible()


def test_too_few_packets_show_the_beginning(viewer: Viewer, tmp_path: Path) -> None:
    packets = [(f"{i}.pkt", packet) for i, packet in enumerate(to_packets(PHOTO, payload=61))]
    viewer.give(*packets[1:-2], wait=False)
    viewer.complaint("the first is missing")
    viewer.give(packets[0])
    (received,) = from_packets(packet for _, packet in packets[:-2])
    assert close_to(
        viewer.saved(tmp_path), CODEC.decode(received.data, realism=viewer.realism(), partial=True)
    )
    assert "2 more packets complete the picture" in viewer.page.locator("#remark").inner_text()
    listed = viewer.page.locator("#list button").count()
    viewer.give(*packets[-2:])
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))
    assert not viewer.page.locator("#remark").is_visible()
    assert viewer.page.locator("#list button").count() == listed


def pasted(viewer: Viewer, text: str) -> None:
    script = """text => {
        const transfer = new DataTransfer();
        transfer.setData("text/plain", text);
        window.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
    }"""
    viewer.page.evaluate(script, text)


@pytest.mark.parametrize("code", ["base64url", "base91"])
def test_packets_as_text(viewer: Viewer, code: str, tmp_path: Path) -> None:
    lines = [
        f"12:0{i} anna: {to_line(packet, code)}" for i, packet in enumerate(to_packets(PHOTO, payload=90))
    ]
    pasted(viewer, "\n".join(lines))
    viewer.settled()
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))
    viewer.give(("lines.txt", "\n".join(lines).encode()))
    assert close_to(viewer.saved(tmp_path), CODEC.decode(PHOTO, realism=viewer.realism()))


def test_a_pasted_link_and_pasted_nonsense(viewer: Viewer) -> None:
    pasted(viewer, f"Look: {to_link((TINY / 'odd.sprd').read_bytes(), 'https://example.org/view/')}\n")
    viewer.page.locator("#facts").filter(has_text="130 × 77").wait_for()
    viewer.settled()
    pasted(viewer, "nothing of the kind")
    viewer.complaint("neither a link to a photograph nor packets")


def test_the_paste_button_reads_what_was_copied(viewer: Viewer) -> None:
    """Phones have no other way to paste where no text is being edited."""
    button = viewer.page.locator("#paste-more")
    copy = "text => navigator.clipboard.writeText(text)"
    viewer.context.grant_permissions(["clipboard-read", "clipboard-write"])
    viewer.page.evaluate(copy, to_link((TINY / "odd.sprd").read_bytes(), "https://example.org/view/"))
    button.click()
    viewer.page.locator("#facts").filter(has_text="130 × 77").wait_for()
    viewer.settled()
    viewer.page.evaluate(copy, "nothing of the kind")
    button.click()
    viewer.complaint("neither a link to a photograph nor packets")
    viewer.context.clear_permissions()
    button.click()
    viewer.complaint("does not let this page read")


def test_dropping(viewer: Viewer) -> None:
    script = """(target, [bytes, name]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], name));
        const about = { dataTransfer: transfer, bubbles: true, cancelable: true };
        for (const kind of ["dragover", "drop"]) target.dispatchEvent(new DragEvent(kind, about));
    }"""
    data = (TINY / "tiny_square.sprd").read_bytes()
    viewer.page.locator("main").evaluate(script, [list(data), "dropped.sprd"])
    viewer.page.locator("#facts").filter(has_text="64 × 64").wait_for()
    viewer.settled()
    assert viewer.page.locator("h1").inner_text() == "dropped"


def test_several_files(viewer: Viewer) -> None:
    files = [(f"{name}.sprd", (TINY / f"{name}.sprd").read_bytes()) for name in ("odd", "wide")]
    viewer.give(*files, ("notes.txt", b"nothing"))
    assert "notes.txt is neither" in viewer.complaint("notes.txt")
    assert "130 × 77" in viewer.facts()
    viewer.page.locator("#list button").filter(has_text="wide").last.click()
    viewer.page.locator("#facts").filter(has_text="500 × 40").wait_for()
    viewer.settled()
    assert viewer.page.locator("#list [aria-current=true]").inner_text() == "wide"


def other_weights() -> bytes:
    header = parse_file(PHOTO).header
    other = Header(header.width, header.height, 9, 0, False, header.preset_id, b"\xab\xcd")
    return pack_file(other, b"abc", b"\xab\xcd" * 16)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (jpeg(64, 64), "neither an .sprd file nor a packet"),
        (b"SPR\x20\x01", "cut off inside its header"),
        (b"SPR\x10" + PHOTO[4:], "format version 1"),
        (b"SPR\xf0" + PHOTO[4:], "no release writes"),
        (b"SPR\x27" + PHOTO[4:], "no scale code"),
        (PHOTO[:8] + b"\x80\x80\x7f\x80\x80\x7f" + PHOTO[12:], "at most 16.8 megapixels"),
        (PHOTO[:8] + b"\x81\x00" + PHOTO[10:], "not in the shortest form"),
        (other_weights(), "made with the weights tiny-abcd"),
        (PHOTO[:-1] + bytes([PHOTO[-1] ^ 1]), "damaged or cut off"),
    ],
)
def test_bad_input_is_one_sentence(viewer: Viewer, data: bytes, words: str) -> None:
    viewer.give(("bad.sprd", data), wait=False)
    said = viewer.complaint(words)
    assert said.count(".") - said.count(".sprd") - len(re.findall(r"\d\.\d", said)) == 1, said
    assert viewer.page.locator("h1").is_visible()
    viewer.give(("good.sprd", (TINY / "one_pixel.sprd").read_bytes()))
    assert not viewer.page.locator("#alert").is_visible()


def test_the_page_tells_what_runs(viewer: Viewer) -> None:
    assert "on 2 threads" in viewer.ready() or "threads" in viewer.ready()
    assert "partly invented" in viewer.page.locator(".warning").inner_text()
    label = viewer.page.locator("#canvas").get_attribute("aria-label")
    assert label is not None and "1 by 1 pixels" in label


def test_every_control_has_a_name(viewer: Viewer) -> None:
    script = (
        "all => all.filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length))"
        ".map(e => e.outerHTML)"
    )
    assert viewer.page.eval_on_selector_all("input, button, a, progress, canvas", script) == []


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_phone(browser: Browser, address: str, dark: bool) -> None:
    viewer = Viewer(browser, address, PHONE, dark)
    widths = [viewer.page.evaluate("document.documentElement.scrollWidth")]
    viewer.give(("a-rather-long-name-" * 6 + ".sprd", (TINY / "wide.sprd").read_bytes()), ("b.sprd", PHOTO))
    widths.append(viewer.page.evaluate("document.documentElement.scrollWidth"))
    colour = viewer.page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    complaints = viewer.complaints
    viewer.close()
    assert max(widths) <= PHONE[0] and complaints == []
    assert (sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3 < 80) is dark


def test_files_are_chosen_by_keyboard(browser: Browser, address: str) -> None:
    viewer = Viewer(browser, address)
    choosers: list[FileChooser] = []
    viewer.page.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # playwright takes no built-in method
    viewer.page.reload()
    viewer.page.keyboard.press("Tab")
    viewer.page.keyboard.press("Enter")
    while not choosers:
        viewer.page.wait_for_timeout(50)
    choosers[0].set_files(str(TINY / "odd.sprd"))
    viewer.settled()
    assert (
        viewer.page.evaluate("document.activeElement.id") == "realism"
    )  # not lost with the control that went
    viewer.close()
