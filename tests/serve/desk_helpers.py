"""What the browser tests of the service's page do with the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from browser_helpers import Visit

if TYPE_CHECKING:
    pass


def give(visit: Visit, data: bytes, name: str = "holiday.jpg", kind: str = "image/jpeg") -> None:
    """Choose a file, and wait until it is decoded."""
    visit.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})
    settled(visit)


def settled(visit: Visit) -> None:
    """Wait until nothing is in progress; work on a change begins a moment after the change."""
    visit.page.wait_for_timeout(250)
    visit.page.locator("#frame[aria-busy=false]").wait_for()


def size(visit: Visit) -> int:
    return int(visit.page.locator("#bytes").inner_text().replace(",", ""))


def saved_by(visit: Visit, link: str, folder: Path) -> tuple[str, bytes]:
    with visit.page.expect_download() as started:
        visit.page.locator(link).click()
    started.value.save_as(folder / "file")
    return started.value.suggested_filename, (folder / "file").read_bytes()
