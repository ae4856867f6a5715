"""Progress of long work."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[float], None]
"""Receives the fraction that is done."""


def unheard(fraction: float) -> None:
    """Ignore the fraction that is done."""


def part_of(report: Report, start: float, share: float) -> Report:
    """Return an observer of a part of the work, which reports to an observer of the whole."""
    return lambda done: report(start + share * done)
