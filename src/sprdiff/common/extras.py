"""Packages that only some features need are imported at the moment when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import SprdiffError


def need(module: str, extra: str, error: type[SprdiffError] = SprdiffError) -> Any:
    """Import a module that not every installation has.

    Args:
        module: its full name, such as ``pyarrow.parquet``.
        extra: the extra of sprdiff that installs it.
        error: the class of the error that is raised when the module is missing.

    Raises:
        SprdiffError: the module is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as caught:
        package = module.partition(".")[0]
        raise error(f"this needs {package}: pip install 'sprdiff[{extra}]'") from caught
