"""How long work is ended from outside: before each piece of it, whoever watches may raise an error.

>>> with interruptible(check):       # check(pixels) is called before each tile, on the thread that works
...     codec.decode(data)           # ends with whatever check raises, such as StoppedError

A check can look at a flag or at a clock, or it can add up pixels and raise an error at a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[int], None]
"""Is told how many pixels the next piece of work covers, halo included (0: its work does not go by pixels)."""

_checks: ContextVar[tuple[Check, ...]] = ContextVar("sprdiff_checks", default=())


@contextmanager
def interruptible(check: Check) -> Iterator[None]:
    """Call `check` before each piece of the work of a ``with`` block; what it raises ends the work.

    Checks of blocks around this one stay in force. A check holds for the thread (or the task of asyncio) that entered
    the block, not for threads that are started inside.
    """
    token = _checks.set((*_checks.get(), check))
    try:
        yield
    finally:
        _checks.reset(token)


def checkpoint(pixels: int = 0) -> None:
    """Called by long work before each piece: a tile of a network, a step of the entropy coder, a strip of a picture.

    Args:
        pixels: that the piece covers, in pixels of the coded picture and with its halo.
    """
    for check in _checks.get():
        check(pixels)
