"""Exit statuses of the commands that are more than success, failure and wrong usage."""

from __future__ import annotations

INTERRUPTED = 130
"""After Ctrl+C: 128 and the number of the signal, as shells have it."""
