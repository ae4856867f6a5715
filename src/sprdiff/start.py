"""The start of the commands, before any slow import, so that Ctrl+C prints one line from then on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from .common.exits import INTERRUPTED


def main() -> int:
    """Run the command line and return its exit status (``sprdiff``)."""

    def load() -> Callable[[], int]:
        from .cli import main

        return main

    return _run("sprdiff", load)


def thumbnailer() -> int:
    """Run the thumbnailer and return its exit status (``sprdiff-thumbnailer``)."""

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
    """Occupy the standard streams that the caller has closed; otherwise the next opened file would get
    their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    sys.exit(main())
