"""Reading and writing of whole files: nothing is half-written, and nothing is overwritten by accident."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from ..errors import OutputError, OutputExistsError, SprdiffError

STDIO = "-"
"""The path that means standard input or standard output."""
MAX_OBJECT = 2**24
"""The largest JSON file in bytes that `read_object` reads."""
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"(?:/dev|/proc/(?P<process>self|thread-self|\d+))/fd/(?P<number>\d+)", re.ASCII)
_PIECE = 2**20
LOCK, HOLDER = "running.lock", "running.json"
"""The lock of a folder that only one run at a time may use; it says who holds it."""


def descriptor(path: str | Path) -> int | None:
    """Return the number of the open file that a path means, such as 1 for ``/dev/stdout``; None if it
    means none."""
    if os.name != "posix" or "\0" in str(path):
        return None
    name = os.path.abspath(path)
    if name in _STREAMS:
        return _STREAMS[name]
    found = _DESCRIPTOR.fullmatch(name)
    return (
        int(found["number"])
        if found and found["process"] in (None, "self", "thread-self", str(os.getpid()))
        else None
    )


def as_stdio(path: str, number: int) -> str:
    """Return ``-`` for every name of standard input (0) or standard output (1); any other path as it is."""
    return STDIO if descriptor(path) == number else path


def is_special(path: str | Path) -> bool:
    """Whether the path is a device, a pipe, a socket or an open file: such a path is written to and never
    replaced."""
    if descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a ValueError means a null byte in the name
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def describe(error: OSError) -> str:
    """Return the reason of an `OSError` in lower case and without the path: ``no space left on device``."""
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; a pipe, which could block for ever, and other special files are an
    `OSError`."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "No regular file", str(path))
    return open(handle, "rb")


def read_bytes(
    path: str | Path,
    error: type[SprdiffError],
    read: Callable[[BinaryIO], bytes] = lambda stream: stream.read(),
) -> bytes:
    """Return the bytes of a file, or of standard input for ``-``.

    Args:
        read: a function that reads the stream, for files whose beginning tells how long they may be.

    Raises:
        SprdiffError: of the class `error`: the file cannot be read; or whatever `read` raises.
    """
    name = "standard input" if as_stdio(str(path), 0) == STDIO else str(path)
    try:
        if name != str(path):
            if sys.stdin is None:  # the caller may have closed it
                raise error("standard input is closed")
            return read(sys.stdin.buffer)
        with open(path, "rb") as stream:
            return read(stream)
    except OSError as caught:
        raise error(f"{name} cannot be read: {describe(caught)}") from caught


def read_object(path: Path, error: type[SprdiffError]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        SprdiffError: of the class `error`: the file cannot be read, or holds something else.
    """
    try:
        with open_regular(path) as stream:
            data = read_at_most(stream, MAX_OBJECT)
    except OSError as caught:
        raise error(f"{path} cannot be read: {describe(caught)}") from caught
    if data is None:
        raise error(f"{path} is larger than {MAX_OBJECT // 2**20} MiB")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as caught:
        raise error(f"{path} is not a readable JSON file ({caught})") from caught
    if not isinstance(content, dict):
        raise error(f"{path} must hold one JSON object")
    return content


def read_at_most(stream: IO[bytes], most: int, data: bytes = b"") -> bytes | None:
    """Return `data` and the rest of a stream; None if there are more than `most` bytes."""
    found = bytearray(data)
    while len(found) <= most and (piece := stream.read(min(_PIECE, most + 1 - len(found)))):
        found += piece
    return bytes(found) if len(found) <= most else None


def check_output(path: str | Path, *, force: bool = False) -> None:
    """Refuse an output that could not be written, before any work is done.

    Raises:
        OutputExistsError: it exists, and `force` is not given.
        OutputError: it is a directory, or its folder does not exist.
    """
    if str(path) == STDIO or is_special(path):
        return
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{path} is a directory")
    if os.path.lexists(target) and not force:
        raise _exists(path)
    if not target.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {target.parent}")


def write_atomic(path: str | Path, data: bytes, *, force: bool = False) -> None:
    """Write a file completely or not at all: a temporary file is flushed to the disk and renamed in the end.

    Args:
        path: the file; ``-`` is standard output; devices and pipes are written to directly.
        force: replace a file that exists. A link is followed; the permissions of the old file are kept.

    Raises:
        OutputExistsError: the file exists, and `force` is not given.
        OutputError: it cannot be written.
        BrokenPipeError: the reader of standard output has gone.
    """
    check_output(path, force=force)
    number = descriptor(path)
    name = "standard output" if str(path) == STDIO or number == 1 else str(path)
    try:
        if name != str(path):
            if sys.stdout is None:  # the caller may have closed it
                raise OutputError("standard output is closed")
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif number is not None:  # opened again by its name, it would be written from its start
            with os.fdopen(os.dup(number), "wb") as stream:
                stream.write(data)
        elif is_special(path):
            with open(path, "wb") as stream:
                stream.write(data)
        else:
            _write_beside(Path(os.path.realpath(path)), data, force=force)
    except BrokenPipeError:
        raise
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {describe(error)}") from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make a folder whole or not at all: a ``with`` block fills one beside its place, which then replaces it.

    If anything goes wrong, the old folder stays as it was.

    Yields:
        The folder to fill.

    Raises:
        OSError: it could not be made or moved.
    """
    folder = folder.resolve()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        _replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(partial: Path, folder: Path) -> None:
    """Move a finished folder to its place and delete the old one, which is put back if that fails."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def place(finished: Path, path: Path, *, force: bool = False) -> None:
    """Rename a finished file on the same disk, atomically and durably.

    Args:
        force: replace a file that exists; its permissions are kept.

    Raises:
        OutputExistsError: the file exists, and `force` is not given.
        OutputError: it cannot be renamed.
    """
    check_output(path, force=force)
    try:
        with open(finished, "rb") as stream:
            os.fsync(stream.fileno())
        _name(finished, path, force=force)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {describe(error)}") from error


def _exists(path: str | Path) -> OutputExistsError:
    return OutputExistsError(f"{path} already exists; only -f (force) overwrites it")


def _write_beside(target: Path, data: bytes, *, force: bool) -> None:
    temporary = target.parent / f".sprdiff-{secrets.token_hex(8)}.tmp"
    try:
        # Not tempfile, whose files are private to the user: these must follow the umask like any other
        # file.
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _name(temporary, target, force=force)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _name(temporary: Path, target: Path, *, force: bool) -> None:
    if force:
        with suppress(OSError):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    else:
        _name_if_free(temporary, target)
    _sync_folder(target.parent)


def _name_if_free(temporary: Path, target: Path) -> None:
    """Rename the file unless another process took the name meanwhile (FileExistsError)."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, where the check cannot be atomic
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, if the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def held(folder: Path, command: str, filelock: Any, busy: type[SprdiffError]) -> Iterator[None]:
    """Lock a folder against other runs while a ``with`` block runs; create it if needed. The lock file stays.

    Args:
        command: what those who have to wait are told.
        filelock: the module of that name, which not every installation has.
        busy: the class of the error that is raised if another run holds the lock; the message says which.

    Raises:
        OutputError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise busy(f"{folder} is in use by {_holder(folder)}") from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {describe(error)}") from error
    try:
        holder = {"pid": os.getpid(), "host": platform.node(), "command": command}
        write_atomic(folder / HOLDER, json.dumps(holder).encode(), force=True)
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_bytes())
        return f"process {holder['pid']} on {holder['host']}: {holder['command']}"
    except (OSError, ValueError, TypeError, LookupError):  # that run has just started or just ended
        return "another run"
