"""Who is told how a run goes."""

from __future__ import annotations


class Watcher:
    """Told how a run goes; this one keeps it to itself."""

    def note(self, text: str) -> None:
        """One line that the user should know."""

    def begin(self, units: int, *, pictures: bool) -> None:
        """Work starts on so many units; `pictures`: each of them is one."""

    def opened(self, pictures: int) -> None:
        """A container turns out to hold so many pictures."""

    def advanced(self, pictures: int, failed: int) -> None:
        """So many more pictures have been worked on; so many of them failed."""
