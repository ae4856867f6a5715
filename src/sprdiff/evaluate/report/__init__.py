"""The report of a comparison: one self-contained page, the same tables as Markdown, and the plots as
files."""

from __future__ import annotations

from .report import write

__all__ = ["write"]
