"""The command line: `main` runs one command, `app` holds them all."""

from __future__ import annotations

from .main import app, main

__all__ = ["app", "main"]
