"""Files by address: paths of this machine, or anything that fsspec knows (``s3://``, ``gs://``, ``https://``)."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..common.files import describe, open_regular, read_at_most
from ..errors import BatchError, ImageError, SprdiffError
from ..imageio.kinds import HEAD
from .needs import need

T = TypeVar("T")

MAX_FILE = 2**31
"""Bytes of a file that holds one picture: more than the largest picture has uncompressed at 16 bits."""
PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try of what a network may refuse for a moment."""
OWN = ".sprdiff-batch"
"""Folder of a run, in its destination."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[a-z0-9]{2,}::")
_WEB = ("http://", "https://")
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError,
          ImportError, ValueError, NotImplementedError, SprdiffError)  # fmt: skip


def is_remote(address: str) -> bool:
    """Whether fsspec is asked for it; ``file://`` is a path."""
    return _ADDRESS.match(address) is not None and not address.startswith("file://")


def is_web(address: str) -> bool:
    """Whether it is on a web server, which lists no folders and takes no files."""
    return address.lower().startswith(_WEB)


def as_path(address: str) -> Path:
    """The path that a local address means."""
    assert not is_remote(address)
    return Path(address.removeprefix("file://"))


def absolute(address: str) -> str:
    """The address wherever it is used: workers may have another working folder."""
    return address.rstrip("/") if is_remote(address) else os.path.abspath(as_path(address))


def join(base: str, name: str) -> str:
    """The address of a name with slashes inside a folder."""
    return f"{base.rstrip('/')}/{name}" if is_remote(base) else str(as_path(base).joinpath(*name.split("/")))


@dataclass
class Listing:
    """One folder of a tree.

    Attributes:
        folder: inside the tree, with slashes; empty for its root.
        files: (name, bytes), sorted.
        passed_over: how many of what kind are neither files nor searched.
    """

    folder: str
    files: list[tuple[str, int]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def walk(address: str, without: str | None = None) -> Iterator[Listing]:
    """All folders of a tree, in an order that only names determine; hidden ones are not searched, links not followed.

    Args:
        without: a folder inside that is left out.

    Raises:
        BatchError: a folder is missing or cannot be read: what is in it would be lost without a word.
    """
    leave_out = None if without is None else _norm(without)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        place = join(address, folder) if folder else address
        listing, below = Listing(folder), []
        for name, kind, size in sorted(_entries(place)):
            inner = f"{folder}/{name}" if folder else name
            if name == OWN:
                continue
            if _hidden(name):
                listing.passed_over["hidden"] += 1
            elif kind == "file":
                listing.files.append((name, size))
            elif kind == "directory":
                below += [inner] if _norm(join(address, inner)) != leave_out else []
            else:
                listing.passed_over[kind] += 1
        yield listing
        waiting += reversed(below)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def names_in(address: str) -> set[str]:
    """What is in a folder; nothing where there is none.

    Raises:
        BatchError: it cannot be read.
    """
    if not is_remote(address) and not os.path.isdir(address):
        return set()
    try:
        return {name for name, _, _ in _entries(address)}
    except BatchError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return set()
        raise


def is_folder(address: str) -> bool:
    """Whether an address is a folder (or, on object stores, a prefix of names).

    Raises:
        BatchError: it cannot be told.
    """
    if not is_remote(address):
        return as_path(address).is_dir()
    return not is_web(address) and bool(asked(address, lambda files, path: files.isdir(path)))


def size_of(address: str) -> int | None:
    """Bytes of a file; None where there is none, or none that says.

    Raises:
        BatchError: it cannot be told.
    """

    def ask(files: Any, path: str) -> int | None:
        files.invalidate_cache(posixpath.dirname(path))
        try:
            size: int | None = files.info(path).get("size")
            return size
        except FileNotFoundError:
            return None

    if is_remote(address):
        return asked(address, ask)
    with suppress(OSError):
        return os.stat(as_path(address)).st_size
    return None


def read(address: str, bound: Callable[[bytes], int] = lambda head: MAX_FILE) -> bytes:
    """A whole file.

    Args:
        bound: bytes that are read at most, by the first `HEAD` of them; what it raises is raised.

    Raises:
        ImageError: it is longer than that, or than `MAX_FILE`.
        BatchError: it cannot be read.
    """

    def whole(stream: Any) -> bytes:
        # What the other side says about the length need not be true.
        head = stream.read(HEAD)
        most = min(bound(head), MAX_FILE)
        data = read_at_most(stream, most, head)
        if data is None:
            raise ImageError(f"{address} is longer than {most} bytes")
        return data

    def remote(files: Any, path: str) -> bytes | SprdiffError:
        with _stream(files, path) as stream:
            try:
                return whole(stream)
            except SprdiffError as error:  # not the store's fault
                return error

    if is_remote(address):
        found = asked(address, remote)
        if isinstance(found, SprdiffError):
            raise found
        return found
    try:
        with open_regular(as_path(address)) as file:
            return whole(file)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise BatchError(f"{address} cannot be read: {reason(error)}") from error


def _stream(files: Any, path: str) -> Any:
    """A file to be read from its start to its end; web servers need not know how long it is."""
    return files.open(path, "rb", block_size=0) if is_web(path) else files.open(path, "rb")


def fetch(address: str, path: Path) -> None:
    """Copy a remote file to a path.

    Raises:
        BatchError: it cannot be read or stored.
    """

    def copy(files: Any, source: str) -> None:
        with _stream(files, source) as stream, open(path, "wb") as out:
            shutil.copyfileobj(stream, out, 2**20)

    asked(address, copy)


def _entries(address: str) -> list[tuple[str, str, int]]:
    """(name, ``file``, ``directory`` or what else it is, bytes) of what is in a folder."""
    if not is_remote(address):
        try:
            with os.scandir(as_path(address)) as found:
                return [_local_entry(entry) for entry in found]
        except OSError as error:
            raise BatchError(f"{address} cannot be read: {reason(error)}") from error

    def ask(files: Any, path: str) -> list[tuple[str, str, int]]:
        files.invalidate_cache(path)
        found = [entry for entry in files.ls(path, detail=True) if entry["name"].rstrip("/") != path.rstrip("/")]
        return [(posixpath.basename(e["name"].rstrip("/")), e["type"], int(e.get("size") or 0)) for e in found]

    return asked(address, ask)


def _local_entry(entry: os.DirEntry[str]) -> tuple[str, str, int]:
    if entry.is_dir(follow_symlinks=False):
        return entry.name, "directory", 0
    try:
        about = entry.stat()
    except OSError:
        return entry.name, "broken link", 0
    if stat.S_ISREG(about.st_mode):
        return entry.name, "file", about.st_size
    return entry.name, "link to a folder" if stat.S_ISDIR(about.st_mode) else "special file", 0


def asked(address: str, question: Callable[[Any, str], T]) -> T:
    """The answer of the file system that an address belongs to; tried again where that may help.

    Raises:
        BatchError: there is none; its cause says why.
    """
    fsspec = need("fsspec")
    for pause in (*PAUSES, None):
        try:
            files, path = fsspec.core.url_to_fs(address)
            return question(files, path)
        except Exception as error:  # every file system has errors of its own
            if pause is None or isinstance(error, _FINAL):
                raise BatchError(f"{address} cannot be reached: {reason(error)}") from error
            time.sleep(pause)
    raise AssertionError


def reason(error: BaseException) -> str:
    """Why something from outside failed, without the path, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror and error.errno:
        return describe(error)
    return " ".join(str(error).split())[:300] or type(error).__name__


def _norm(address: str) -> str:
    return address.rstrip("/") if is_remote(address) else os.path.realpath(as_path(address))
