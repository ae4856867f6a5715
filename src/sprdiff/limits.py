"""What bounds the work on a picture: how its pixels are counted, and the moments at which work can be stopped.

Floor 0 of the layout, beside `errors`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import LimitError

MIN_SIDE = 64
"""A side counts as so many pixels at least: the networks see whole cells of 64, however thin the picture is."""

Check = Callable[[], None]
"""Is called between tiles; what it raises ends the work."""

_check: ContextVar[Check | None] = ContextVar("sprdiff_check", default=None)


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
    """A `Check` that raises when the time is over."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """It begins now."""
        self._seconds, self._clock = seconds, clock
        self._end = clock() + seconds

    def __call__(self) -> None:
        """Raise `LimitError` when the time is over."""
        if self._clock() > self._end:
            raise LimitError(f"the picture is not finished within the limit of {self._seconds:g} seconds")


@contextmanager
def stopped_by(check: Check | None) -> Iterator[None]:
    """Call `check` between the tiles of all work that this thread does meanwhile; None: as it was."""
    if check is None:
        yield
        return
    token = _check.set(check)
    try:
        check()
        yield
    finally:
        _check.reset(token)


def checkpoint() -> None:
    """A moment at which work can be stopped."""
    check = _check.get()
    if check is not None:
        check()
