"""The page that opens files, in a browser."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from browser_helpers import DESK
from conftest import BROWSERS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATIENCE = 240_000
"""Milliseconds to wait, because the machine may be busy with other things."""


class Viewer:
    """An open page, with its complaints and its requests."""

    def __init__(
        self, browser: Browser, address: str, size: tuple[int, int] = DESK, dark: bool = False
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
        )
        self.context.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def give(self, *files: tuple[str, bytes], wait: bool = True) -> None:
        """Choose files by name and contents, and wait until the picture of the first is decoded."""
        field = "#file" if self.page.locator("#drop").is_visible() else "#more"
        chosen: Any = [
            {"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files
        ]
        self.page.set_input_files(field, chosen)
        if wait:
            self.settled()

    def settled(self) -> None:
        """Wait until a picture is there and nothing is in progress."""
        self.page.wait_for_timeout(250)  # a dial is acted upon when it has rested
        self.page.locator("#save:enabled").wait_for()

    def ready(self) -> str:
        """Wait for the decoder; return what the page says about it."""
        about = self.page.locator("#about")
        about.filter(has_text="is ready").wait_for()
        return about.inner_text()

    def complaint(self, words: str) -> str:
        """Wait for a complaint with these words; return all of it."""
        alert = self.page.locator("#alert p")
        alert.filter(has_text=words).wait_for()
        return alert.inner_text()

    def realism(self) -> float:
        """Return what the dial shows: the default, or where an earlier picture has left it."""
        return float(self.page.locator("#realism").input_value())

    def turn(self, dial: str, value: float) -> None:
        """Set a dial as a hand does."""
        script = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }"
        self.page.locator(dial).evaluate(script, str(value))
        self.settled()

    def saved(self, folder: Path) -> Image.Image:
        """Return the picture as the page saves it."""
        with self.page.expect_download() as started:
            self.page.locator("#save").click()
        started.value.save_as(folder / "saved.png")
        return Image.open(io.BytesIO((folder / "saved.png").read_bytes()))

    def shown(self) -> NDArray[np.uint8]:
        """Return what is painted on the page, uint8 [height, width, 3]."""
        address: str = self.page.locator("#canvas").evaluate("canvas => canvas.toDataURL()")
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
            return np.asarray(image.convert("RGB"))

    def facts(self) -> str:
        return self.page.locator("#facts").inner_text()

    def close(self) -> None:
        self.context.close()


def close_to(found: Image.Image | NDArray[np.uint8], wanted: Image.Image) -> bool:
    """Whether two pictures are the same, within the tolerance after the exactness line."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    difference = np.abs(a - b)
    return bool(difference.max() <= 2 and np.sqrt(np.mean(difference**2)) <= 0.3)


def another(browser: Browser, *arguments: str) -> Browser:
    """Start the same browser once more, with other arguments."""
    path = next(filter(None, map(shutil.which, BROWSERS)))
    return browser.browser_type.launch(
        executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", *arguments]
    )


TINY = Path(__file__).parents[1] / "data" / "tiny"


def golden(name: str, realism: int) -> Image.Image:
    return Image.open(io.BytesIO((TINY / f"{name}_{realism}.png").read_bytes()))
