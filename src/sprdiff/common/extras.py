"""Packages that only some features need are imported at the moment when they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import SprdiffError


def hint(extra: str) -> str:
    """Return the command that installs an extra of sprdiff."""
    return f"pip install 'sprdiff[{extra}]'"


def need(module: str, extra: str, error: type[SprdiffError] = SprdiffError, *, what: str = "this") -> Any:
    """Import a module that not every installation has.

    Args:
        module: its full name, such as ``pyarrow.parquet``.
        extra: the extra of sprdiff that installs it.
        error: the class of the error that is raised when the module is missing.
        what: what needs it, for the message.

    Raises:
        SprdiffError: the module is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as caught:
        package = module.partition(".")[0]
        raise error(f"{what} needs {package}: {hint(extra)}") from caught


@contextmanager
def needed(extra: str, error: type[SprdiffError], what: str) -> Iterator[None]:
    """Turn the `ImportError` of a package that is missing inside a ``with`` block into an error that names
    the extra.

    Args:
        extra: the extra of sprdiff that installs the packages.
        error: the class of the error that is raised.
        what: what needs them, for the message.

    Raises:
        SprdiffError: a package is not installed.
    """
    try:
        yield
    except ImportError as caught:
        if (caught.name or "").startswith("sprdiff"):  # a fault of our own
            raise
        raise error(f"{what} needs {caught.name}: {hint(extra)}") from caught
