"""One line of text about an exception, and text that is safe to show."""

from __future__ import annotations

from ..errors import SprdiffError
from .files import describe

_LONGEST = 300


def reason(error: BaseException) -> str:
    """Say in a few words why a library or the system refused something; paths are omitted."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror and error.errno:
        return describe(error)
    return " ".join(str(error).split())[:_LONGEST] or type(error).__name__


def explain(error: BaseException) -> str:
    """Say why a piece of work failed; an unexpected error is named with its type."""
    if isinstance(error, SprdiffError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


def printable(text: str) -> str:
    """Return the text with all characters escaped that do not print, such as control characters and
    changes of direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str) -> str:
    """Return the text on one line: line breaks become spaces, and what does not print is escaped."""
    return printable(" ".join(text.split()))
