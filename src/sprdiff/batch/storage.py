"""Sources and outputs by address, which is a path of this machine or anything that fsspec opens."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, TypeVar

from ..common import files as local
from ..common import remote
from ..common.messages import reason
from ..common.remote import as_path, is_remote, is_web, join
from ..errors import BatchError, ImageError, OutputError
from ..imageio.kinds import HEAD

T = TypeVar("T")

MAX_FILE = 2**31
"""Bytes of a file that holds one picture: more than the largest picture has uncompressed at 16 bits."""
OWN = ".sprdiff-batch"
"""The folder in a destination that belongs to the run."""
_TIMES = ("ETag", "etag", "mtime", "LastModified", "Last-Modified", "last_modified", "updated", "created")
"""Where file systems say when a file was written, or which version of it this is."""


@dataclass(frozen=True)
class Stamp:
    """What tells one version of a file from another.

    Attributes:
        size: in bytes; None if the file system does not say.
        time: when it was written, or a tag of its version; empty if the file system does not say.
        sha256: of its contents in hexadecimal digits; empty if they have not been read.
    """

    size: int | None = None
    time: str = ""
    sha256: str = ""


def walk(address: str, without: str | None = None) -> Iterator[tuple[str, dict[str, Stamp], Counter[str]]]:
    """List all folders of a tree, in an order that depends on names only.

    Each comes as its path inside the tree, with slashes; its files; and how many entries of each kind are
    neither files nor searched, which are hidden names and links to folders above all.

    Args:
        without: a folder inside the tree that is left out.

    Raises:
        BatchError: a folder is missing or cannot be read. Going on would silently lose what is in it.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        files, below, passed_over = dict[str, Stamp](), list[str](), Counter[str]()
        for name, kind, stamp in sorted(_entries(join(address, folder) if folder else address)):
            inner = f"{folder}/{name}" if folder else name
            if name == OWN or (kind == "directory" and without and _same(join(address, inner), without)):
                continue
            if _hidden(name):
                passed_over["hidden"] += 1
            elif kind == "file":
                files[name] = stamp
            elif kind == "directory":
                below.append(inner)
            else:
                passed_over[kind] += 1
        yield folder, files, passed_over
        waiting += reversed(below)


def is_remote_folder(address: str) -> bool:
    """Whether a remote address is a folder or, on object stores, the beginning of names.

    Raises:
        BatchError: the file system does not answer.
    """
    return (
        is_remote(address)
        and not is_web(address)
        and _ask(address, lambda files, path: bool(files.isdir(path)))
    )


def stat(address: str) -> Stamp | None:
    """Return size and time of a file, or None where there is no file.

    Raises:
        BatchError: the file system does not answer.
    """

    def ask(files: Any, path: str) -> Stamp | None:
        files.invalidate_cache(posixpath.dirname(path))
        with suppress(FileNotFoundError):
            return _stamp(files.info(path))
        return None

    if is_remote(address):
        return _ask(address, ask)
    with suppress(OSError, ValueError):
        return _local_stamp(os.stat(as_path(address)))
    return None


def digest(address: str) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Raises:
        BatchError: it cannot be read.
    """
    return _reading(address, lambda stream: hashlib.file_digest(stream, "sha256").hexdigest())


def unchanged(address: str, before: Stamp, now: Stamp | None) -> bool:
    """Whether a file has the contents that it had; they are read only if size and time leave that open.

    Args:
        now: size and time of the file; None if there is no file.

    Raises:
        BatchError: it cannot be read.
    """
    if now is None or (now.size != before.size and None not in (now.size, before.size)):
        return False
    return bool(now.time and now.time == before.time) or digest(address) == before.sha256


def read(address: str, bound: Callable[[bytes], int] = lambda head: MAX_FILE) -> bytes:
    """Read a whole file.

    Args:
        bound: a function of the first `HEAD` bytes that returns how many bytes the file may have.

    Raises:
        ImageError: it is longer than that, or than `MAX_FILE`.
        SprdiffError: whatever `bound` raises.
        BatchError: it cannot be read.
    """

    def whole(stream: Any) -> bytes:
        # What the other side says about the length need not be true.
        head = stream.read(HEAD)
        most = min(bound(head), MAX_FILE)
        data = local.read_at_most(stream, most, head)
        if data is None:
            raise ImageError(f"{address} is longer than {most} bytes")
        return data

    return _reading(address, whole)


def place(finished: Path, address: str, *, force: bool) -> None:
    """Give a finished file of this machine its address, whole or not at all.

    Args:
        finished: on the same disk as the address, unless that is remote.

    Raises:
        OutputExistsError: another file is there, and `force` is not given.
        OutputError: it cannot be written.
    """
    if is_remote(address):
        remote.upload(
            address, lambda files, path, mode: files.put_file(str(finished), path, mode=mode), force=force
        )
        return
    make_folder(as_path(address).parent)
    local.place(finished, as_path(address), force=force)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: the system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {reason(error)}") from error


def _ask(address: str, question: Callable[[Any, str], T]) -> T:
    return remote.ask(address, question, BatchError)


def _reading(address: str, use: Callable[[Any], T]) -> T:
    """Return what a function makes of a file, which it reads from its start to its end."""

    def ask(files: Any, path: str) -> T:
        # A web server need not know how long a file is: block_size=0 does not ask it.
        options = {"block_size": 0} if is_web(path) else {}
        with files.open(path, "rb", **options) as stream:
            return use(stream)

    if is_remote(address):
        return _ask(address, ask)
    try:
        with local.open_regular(as_path(address)) as stream:
            return use(stream)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise BatchError(f"{address} cannot be read: {reason(error)}") from error


def _entries(address: str) -> list[tuple[str, str, Stamp]]:
    """List a folder: names; ``file``, ``directory`` or a word for what else it is; sizes and times."""

    def ask(files: Any, path: str) -> list[tuple[str, str, Stamp]]:
        files.invalidate_cache(path)
        found = [
            about for about in files.ls(path, detail=True) if about["name"].rstrip("/") != path.rstrip("/")
        ]
        return [(posixpath.basename(a["name"].rstrip("/")), a["type"], _stamp(a)) for a in found]

    if is_remote(address):
        return _ask(address, ask)
    try:
        with os.scandir(as_path(address)) as found:
            return [_local_entry(entry) for entry in found]
    except OSError as error:
        raise BatchError(f"{address} cannot be read: {reason(error)}") from error


def _local_entry(entry: os.DirEntry[str]) -> tuple[str, str, Stamp]:
    if entry.is_dir(follow_symlinks=False):
        return entry.name, "directory", Stamp()
    try:
        about = entry.stat()
    except OSError:
        return entry.name, "broken link", Stamp()
    if S_ISREG(about.st_mode):
        return entry.name, "file", _local_stamp(about)
    return entry.name, "link to a folder" if S_ISDIR(about.st_mode) else "special file", Stamp()


def _stamp(about: dict[str, Any]) -> Stamp:
    size = about.get("size")
    time = next((str(about[name]) for name in _TIMES if about.get(name)), "")
    return Stamp(None if size is None else int(size), time)


def _local_stamp(about: os.stat_result) -> Stamp:
    return Stamp(about.st_size, str(about.st_mtime_ns))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _same(one: str, other: str) -> bool:
    if is_remote(one) or is_remote(other):
        return one.rstrip("/") == other.rstrip("/")
    return os.path.realpath(as_path(one)) == os.path.realpath(as_path(other))
