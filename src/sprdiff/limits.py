"""What bounds the work on a picture: how its pixels are counted, and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Callable

from .errors import LimitError

MIN_SIDE = 64
"""A side counts as so many pixels at least: the networks see whole cells of 64, however thin the picture is."""


def above(width: int, height: int, max_pixels: int) -> bool:
    """Whether a picture is above a limit on pixels: its own, or those of the grid that it is padded to.

    Any picture inside one cell counts as its own pixels. What the networks compute is then below four times the
    limit, and near to it where no side is thin.
    """
    padded = max(width, MIN_SIDE) * max(height, MIN_SIDE)
    return width * height > max_pixels or padded > max(max_pixels, MIN_SIDE**2)


def size_message(width: int, height: int, max_pixels: int) -> str:
    """Why such a picture is refused."""
    counted = f", which count as {max(width, MIN_SIDE)} x {max(height, MIN_SIDE)}"
    thin = counted if width * height <= max_pixels else ""
    return f"{width} x {height} pixels{thin}, above the limit of {max_pixels}"


class Deadline:
    """A check for `interrupt.interruptible` that ends work when its time is over."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """The time begins now."""
        self._seconds, self._clock = seconds, clock
        self._end = clock() + seconds

    def __call__(self, pixels: int) -> None:
        """Raise `LimitError` when the time is over, however large the next piece of work is."""
        if self._clock() > self._end:
            raise LimitError(f"the picture is not finished within the limit of {self._seconds:g} seconds")
