"""Shards from anywhere: names written out, files fetched whole into a folder of bounded size.

A source is a folder, a file, ``http(s)://…``, ``pipe:COMMAND`` (its output, as WebDataset has it) or any address that
fsspec knows (``s3://…``), with ranges in braces: ``https://host/photos-{000000..000041}.tar``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ...errors import TrainingError

TRIES = 3
TIMEOUT = 60.0
"""Seconds that a server may be silent."""
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def is_remote(source: str) -> bool:
    """Whether a source is an address and no path (one letter and a colon is a drive)."""
    match = _ADDRESS.match(source)
    return match is not None and match.end() > 2


def expand(sources: Sequence[str]) -> list[str]:
    """Every shard that the sources name, in order.

    Raises:
        TrainingError: a folder or file is missing, or a folder holds no shard.
    """
    return [shard for source in sources for name in _ranges(source) for shard in _shards(name)]


def _ranges(source: str) -> Iterator[str]:
    match = _BRACES.search(source)
    if match is None:
        yield source
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        yield from _ranges(source[: match.start()] + str(number).zfill(len(first)) + source[match.end() :])


def _shards(name: str) -> list[str]:
    if is_remote(name):
        return [name]
    path = Path(name)
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise TrainingError(f"{name}: no such folder or shard")
    found = sorted(str(p) for p in path.rglob("*.tar") if p.is_file())
    if not found:
        raise TrainingError(f"{name}: holds no .tar shards; make some with: sprdiff data pack {name} OUT")
    return found


class Cache:
    """Remote shards on disk: the least recently used go when they get too many.

    Args:
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int = 50 * 2**30) -> None:
        self.folder, self.limit = folder, limit

    def path(self, source: str) -> Path:
        """The shard as a file; of a remote one a copy, fetched if it is not there.

        Raises:
            TrainingError: it cannot be fetched or stored.
        """
        if not is_remote(source):
            return Path(source)
        target = self.folder / f"{hashlib.sha256(source.encode()).hexdigest()[:24]}.tar"
        try:
            if not target.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._fetch(source, target)
            os.utime(target)
        except OSError as error:
            raise TrainingError(f"{source}: cannot be stored in {self.folder} ({error})") from error
        self._trim(target)
        return target

    def _fetch(self, source: str, target: Path) -> None:
        partial = target.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        try:
            for left in reversed(range(TRIES)):
                try:
                    with partial.open("wb") as out:
                        _copy(source, out)
                    break
                except (OSError, EOFError, subprocess.SubprocessError) as error:
                    if not left:
                        raise TrainingError(f"{source}: cannot be fetched ({error})") from error
                    time.sleep(2.0 ** (TRIES - left) - 2)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def _trim(self, keep: Path) -> None:
        found = []
        for path in self.folder.glob("*.tar"):
            with contextlib.suppress(OSError):  # another process may have been faster
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


def _copy(source: str, out: IO[bytes]) -> None:
    if source.startswith("pipe:"):
        subprocess.run(shlex.split(source.removeprefix("pipe:")), stdout=out, stdin=subprocess.DEVNULL, check=True)
        return
    if source.lower().startswith(("http://", "https://")):
        _download(source, out)
        return
    with _fsspec(source) as stream:
        shutil.copyfileobj(stream, out, 2**20)


def _download(source: str, out: IO[bytes]) -> None:
    try:
        with urllib.request.urlopen(source, timeout=TIMEOUT) as stream:
            expected = stream.headers.get("Content-Length")
            shutil.copyfileobj(stream, out, 2**20)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise OSError(f"{error.code} {error.reason}") from None
    if expected is not None and out.tell() != int(expected):
        raise EOFError(f"{out.tell()} of {expected} bytes came")


def _fsspec(source: str) -> Any:
    scheme = source.split(":", 1)[0]
    try:
        return importlib.import_module("fsspec").open(source, "rb")
    except ImportError as error:
        package = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}.get(scheme, "fsspec")
        raise TrainingError(f"{source}: {scheme} addresses need: pip install fsspec {package}") from error
    except ValueError as error:
        raise TrainingError(f"{source}: {error}") from error
