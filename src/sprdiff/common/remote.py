"""Files at an address that fsspec opens, such as ``s3://bucket/key`` or ``https://host/path``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import SprdiffError
from .extras import need
from .messages import reason

T = TypeVar("T")

PAUSES = (0.5, 2.0)
"""Seconds of waiting before the second and the third attempt at what a network may refuse for a moment."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[a-z0-9]{2,}::")
_WEB = ("http://", "https://")
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError,
          ImportError, ValueError, NotImplementedError, SprdiffError)  # fmt: skip
"""After these errors another attempt would fail as well."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_RANGE = 1_000_000


def is_remote(address: str) -> bool:
    """Whether fsspec opens the address; anything else, ``file://`` included, is a path of this machine."""
    return _ADDRESS.match(address) is not None and not address.startswith("file://")


def is_web(address: str) -> bool:
    """Whether the address belongs to a web server, which lists no folders and accepts no files."""
    return address.lower().startswith(_WEB)


def expand(address: str, error: type[SprdiffError] = SprdiffError) -> list[str]:
    """Write out the ranges of an address: ``photos-{000..041}.tar`` stands for 42 names.

    Raises:
        SprdiffError: of the class `error`: a range stands for too many names.
    """
    match = _RANGE.search(address)
    if match is None:
        return [address]
    first, last = (int(text) for text in match.groups())
    if abs(last - first) >= _MAX_RANGE:
        raise error(f"{address} stands for more than {_MAX_RANGE} names")
    numbers = (str(number).zfill(len(match[1])) for number in range(first, last + 1))
    names = (address[: match.start()] + number + address[match.end() :] for number in numbers)
    return [name for written in names for name in expand(written, error)]


def ask(address: str, question: Callable[[Any, str], T], error: type[SprdiffError], extra: str = "batch") -> T:
    """Put a question to the file system of an address; ask again where that may help.

    Args:
        question: a function of the file system and of the path in it.
        error: the class of the error that is raised.
        extra: the extra of sprdiff that installs fsspec.

    Raises:
        SprdiffError: of the class `error`: there is no answer; its ``__cause__`` says why.
    """
    fsspec = need("fsspec", extra, error)
    for pause in (*PAUSES, None):
        try:
            files, path = fsspec.core.url_to_fs(address)
            return question(files, path)
        except Exception as caught:  # every file system has errors of its own
            if pause is None or isinstance(caught, _FINAL):
                raise error(f"{address} cannot be reached: {reason(caught)}") from caught
            time.sleep(pause)
    raise AssertionError


def fetch(address: str, path: Path, error: type[SprdiffError]) -> None:
    """Copy a remote file to a path.

    Raises:
        SprdiffError: of the class `error`: the file cannot be read or stored.
    """
    ask(address, lambda files, source: files.get_file(source, str(path)), error)
