"""Packages that only collections need, loaded on demand."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import BatchError


def need(module: str, extra: str = "batch") -> Any:
    """Import a module.

    Raises:
        BatchError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise BatchError(f"this needs {package}: pip install 'sprdiff[{extra}]'") from error
