"""Exit statuses of the commands beside success, failure and wrong usage."""

from __future__ import annotations

INTERRUPTED = 130
"""The status after Ctrl+C: 128 plus the number of the signal, as in shells."""
