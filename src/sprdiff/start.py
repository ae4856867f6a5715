"""Where the commands start: before anything is imported that takes time, so that Ctrl+C is one line from then on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from .common.exits import INTERRUPTED


def main() -> int:
    """Return ``sprdiff``: run the command line and return its exit status."""

    def load() -> Callable[[], int]:
        from .cli import main

        return main

    return _run("sprdiff", load)


def thumbnailer() -> int:
    """Return ``sprdiff-thumbnailer``: the same for file managers."""

    def load() -> Callable[[], int]:
        from .thumbnailer import main

        return main

    return _run("sprdiff-thumbnailer", load)


def _run(name: str, load: Callable[[], Callable[[], int]]) -> int:
    try:
        _occupy_closed()
        return load()()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            with suppress(OSError):
                sys.stderr.write(f"{name}: error: interrupted\n")
        return INTERRUPTED


def _occupy_closed() -> None:
    """Where the caller has closed a standard stream, keep its number: the next file to be opened would get it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    sys.exit(main())
