"""Files at an address that fsspec opens, such as ``s3://bucket/key`` or ``https://host/path``."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..errors import OutputError, OutputExistsError, SprdiffError
from .extras import need
from .messages import reason

T = TypeVar("T")

PAUSES = (0.5, 2.0)
"""Seconds of waiting before the second and the third attempt."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[a-z0-9]{2,}::")
_WEB = ("http://", "https://")
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    ImportError,
    ValueError,
    NotImplementedError,
    SprdiffError,
)
"""After these errors another attempt would fail as well."""
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2", "memory"})
"""Elsewhere a file can be seen while it is being uploaded, and needs a temporary name."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_RANGE = 1_000_000


def is_remote(address: str) -> bool:
    """Whether fsspec opens the address; anything else, ``file://`` included, is a path of this machine."""
    return _ADDRESS.match(address) is not None and not address.startswith("file://")


def is_web(address: str) -> bool:
    """Whether the address belongs to a web server, which lists no folders and accepts no files."""
    return address.lower().startswith(_WEB)


def as_path(address: str) -> Path:
    """Return the path that a local address means."""
    assert not is_remote(address)
    return Path(address.removeprefix("file://"))


def absolute(address: str) -> str:
    """Return the address in a form that holds for workers in other working folders."""
    return address.rstrip("/") if is_remote(address) else os.path.abspath(as_path(address))


def join(base: str, name: str) -> str:
    """Return the address of a name, which may have slashes, inside a folder."""
    return f"{base.rstrip('/')}/{name}" if is_remote(base) else str(as_path(base).joinpath(*name.split("/")))


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


def ask(
    address: str, question: Callable[[Any, str], T], error: type[SprdiffError], extra: str = "batch"
) -> T:
    """Ask the file system of an address; ask again if that may help.

    Args:
        question: a function of the file system and of the path in it.
        error: the class of the error that is raised.
        extra: the extra of sprdiff that installs fsspec.

    Raises:
        SprdiffError: of the class `error`: there is no answer; its ``__cause__`` says why. An error of the
            package that the question raises comes as it is.
    """
    fsspec = need("fsspec", extra, error)
    try:
        return retried(lambda: question(*fsspec.core.url_to_fs(address)))
    except SprdiffError:
        raise  # the question's own error: the file system has done its part
    except Exception as caught:  # every file system has errors of its own
        raise error(f"{address} cannot be reached: {reason(caught)}") from caught


def retried(action: Callable[[], T]) -> T:
    """Run an action; if it fails and that may help, run it again after a pause."""
    for pause in (*PAUSES, None):
        try:
            return action()
        except Exception as caught:
            if pause is None or isinstance(caught, _FINAL):
                raise
            time.sleep(pause)
    raise AssertionError


def fetch(address: str, path: Path, error: type[SprdiffError], extra: str = "batch") -> None:
    """Copy a remote file to a path.

    Raises:
        SprdiffError: of the class `error`: the file cannot be read or stored.
    """
    ask(address, lambda files, source: files.get_file(source, str(path)), error, extra)


def upload(address: str, send: Callable[[Any, str, str], object], *, force: bool) -> None:
    """Store a whole file at a remote address, or nothing.

    Args:
        send: a function of the file system, the path and the mode (``create`` or ``overwrite``) that sends
            the file.
        force: overwrite a file that is there.

    Raises:
        OutputExistsError: a file is there, and `force` is not given.
        OutputError: it cannot be written.
    """

    def store(files: Any, path: str) -> None:
        protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
        if protocols & _OBJECT_STORES:
            send(files, path, "overwrite" if force else "create")
            return
        if not force and files.exists(path):
            raise FileExistsError(path)
        beside = f"{posixpath.dirname(path)}/.sprdiff-{secrets.token_hex(8)}.tmp"
        files.makedirs(posixpath.dirname(path), exist_ok=True)
        try:
            send(files, beside, "overwrite")
            files.mv(beside, path)
        except BaseException:
            with suppress(Exception):
                files.rm_file(beside)
            raise

    try:
        ask(address, store, OutputError)
    except OutputError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise OutputExistsError(f"{address} already exists; only -f (force) overwrites it") from error
        raise
