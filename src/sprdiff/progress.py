"""How far long work is, told to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable

from .limits import checkpoint

Report = Callable[[float], None]
"""Is told the fraction that is done."""


def unheard(fraction: float) -> None:
    """Nobody wants to know."""


def stoppable(report: Report) -> Report:
    """The same report; each is a moment at which work can be stopped, too."""

    def told(done: float) -> None:
        checkpoint()
        report(done)

    return told


def part_of(report: Report, start: float, share: float) -> Report:
    """Reports a part of something as that part of the whole."""
    return lambda done: report(start + share * done)
