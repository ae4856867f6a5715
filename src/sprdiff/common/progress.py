"""How far long work is, told to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[float], None]
"""Is told the fraction that is done."""


def unheard(fraction: float) -> None:
    """Nobody wants to know."""


def part_of(report: Report, start: float, share: float) -> Report:
    """Reports a part of something as that part of the whole."""
    return lambda done: report(start + share * done)
