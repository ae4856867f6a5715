"""Outputs appear whole or not at all, and take no name that is in use unless forced.

Locally that is a file which is made elsewhere on the same disk and gets its name at the end; object stores do the same
with a single request.
"""

from __future__ import annotations

import filecmp
import os
import posixpath
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..common.files import check_output
from ..errors import BatchError, OutputError
from .stores import as_path, asked, is_remote, reason, size_of

# Elsewhere what is being uploaded can be seen, and a temporary name is needed.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2", "memory"})


def write(address: str, data: bytes, *, staging: Path | None, force: bool) -> None:
    """Write a whole file or nothing; the folders on the way are made.

    Args:
        staging: where a local file gets its contents before it gets its name, on the disk of its destination. What a
            killed process leaves is there, then, and not among the outputs.

    Raises:
        OutputError: it exists and not `force`, or cannot be written.
    """
    if is_remote(address):
        _upload(address, lambda files, path, mode: files.pipe_file(path, data, mode=mode), force=force)
        return
    assert staging is not None
    _make_folder(staging)
    staged = staging / secrets.token_hex(8)
    try:
        with open(staged, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _name(staged, as_path(address), force=force)
    except OSError as error:
        raise OutputError(f"{address} cannot be written: {reason(error)}") from error
    finally:
        staged.unlink(missing_ok=True)


def place(path: Path, address: str, *, staging: Path | None, force: bool) -> None:
    """Give a finished local file its address; see `write`. One that is there already and the same is left.

    Raises:
        OutputError: another file is there and not `force`, or it cannot be written.
    """
    if is_remote(address):
        if not force and size_of(address) == path.stat().st_size:
            return  # of a unit that was finished but not noted: the same input gives the same bytes
        _upload(address, lambda files, target, mode: files.put_file(str(path), target, mode=mode), force=force)
        return
    target = as_path(address)
    if not force and target.is_file() and filecmp.cmp(path, target, shallow=False):
        return
    assert staging is not None
    _make_folder(staging)
    staged = staging / secrets.token_hex(8)
    try:
        shutil.copyfile(path, staged)
        with open(staged, "rb") as file:
            os.fsync(file.fileno())
        _name(staged, target, force=force)
    except OSError as error:
        raise OutputError(f"{address} cannot be written: {reason(error)}") from error
    finally:
        staged.unlink(missing_ok=True)


def _name(staged: Path, target: Path, *, force: bool) -> None:
    """Give a file its name, at once and lastingly."""
    _make_folder(target.parent)
    check_output(target, force=force)
    try:
        if force:
            os.replace(staged, target)
        else:
            _name_if_free(staged, target)
    except FileExistsError as error:
        raise OutputError(f"{target} already exists; only -f (force) overwrites it") from error
    with suppress(OSError):  # not every system can
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _name_if_free(staged: Path, target: Path) -> None:
    try:
        os.link(staged, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links: then the check cannot be atomic
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        os.replace(staged, target)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {reason(error)}") from error


def _upload(address: str, send: Callable[[Any, str, str], object], *, force: bool) -> None:
    def store(files: Any, path: str) -> None:
        if _object_store(files):
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
        asked(address, store)
    except BatchError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise OutputError(f"{address} already exists; only -f (force) overwrites it") from error
        raise OutputError(str(error).replace("cannot be reached", "cannot be written")) from error


def _object_store(files: Any) -> bool:
    protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
    return bool(protocols & _OBJECT_STORES)
