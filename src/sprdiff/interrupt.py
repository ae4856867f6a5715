"""Stopping long work from outside: before each piece of it, an observer may raise an error.

>>> with interruptible(check):       # check(pixels) is called before each tile, on the thread that works
...     codec.decode(data)           # ends with whatever check raises, such as StoppedError

A check can look at a flag or at a clock, or add up pixels and raise an error at a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[int], None]
"""A function that receives the number of pixels of the next piece of work, halo included (0 if the work does
not depend on pixels)."""

_checks: ContextVar[tuple[Check, ...]] = ContextVar("sprdiff_checks", default=())


@contextmanager
def interruptible(check: Check) -> Iterator[None]:
    """Call `check` before each piece of the work in a ``with`` block; the work ends with what it raises.

    Checks of surrounding blocks stay active. A check holds for the thread (or the asyncio task) that entered
    the block, not for threads that are started inside.
    """
    token = _checks.set((*_checks.get(), check))
    try:
        yield
    finally:
        _checks.reset(token)


def checkpoint(pixels: int = 0) -> None:
    """Call the active checks; long work calls this before each tile, each step of the entropy coder, each
    strip of a picture.

    Args:
        pixels: the size of the piece in pixels of the coded picture, with its halo.
    """
    for check in _checks.get():
        check(pixels)
