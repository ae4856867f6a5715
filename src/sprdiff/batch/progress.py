"""What a run tells about its progress, to whoever listens."""

from __future__ import annotations


class Progress:
    """A listener that ignores everything; override what you want to hear."""

    def note(self, text: str) -> None:
        """Hear one line that the user should know."""

    def begin(self, files: int, *, pictures: bool) -> None:
        """Hear that work begins on so many files; `pictures` says that each of them is one picture."""

    def opened(self, pictures: int) -> None:
        """Hear that a container holds so many pictures."""

    def advanced(self, pictures: int, failed: int) -> None:
        """Hear that work on so many more pictures has ended, and that so many of them have failed."""
