"""The limits on the work on a picture: how many pixels it may have, how they are counted, and how long it
may take."""

from __future__ import annotations

import time
from collections.abc import Callable

from .errors import LimitError

MAX_PIXELS = 2**28
"""Default limit on the pixels of a picture, both for encoding and for decoding."""
MAX_STEPS = 1000
"""Most evaluations of the generative network."""
MIN_SIDE = 64
"""A side counts as at least this many pixels, because the networks see whole cells of 64 however thin the
picture is."""


def above(width: int, height: int, max_pixels: int) -> bool:
    """Whether a picture is above a limit on pixels: on its own, or on those of the grid that it is padded to.

    A picture inside one cell counts as its own pixels. The networks then compute less than four times the
    limit, and little more than the limit where no side is thin.
    """
    padded = max(width, MIN_SIDE) * max(height, MIN_SIDE)
    return width * height > max_pixels or padded > max(max_pixels, MIN_SIDE**2)


def size_message(width: int, height: int, max_pixels: int) -> str:
    """Return the reason why such a picture is refused."""
    counted = f", which count as {max(width, MIN_SIDE)} x {max(height, MIN_SIDE)}"
    thin = counted if width * height <= max_pixels else ""
    return f"{width} x {height} pixels{thin}, above the limit of {max_pixels}"


class Deadline:
    """A check for `interrupt.interruptible` that ends the work when its time is over."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self._seconds, self._clock = seconds, clock
        self._end = clock() + seconds

    def __call__(self, pixels: int) -> None:
        """Raise `LimitError` if the time is over, however large the next piece of work is."""
        if self._clock() > self._end:
            raise LimitError(f"the picture is not finished within the limit of {self._seconds:g} seconds")
