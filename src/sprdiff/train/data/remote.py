"""Where shards come from; remote ones are fetched whole into a folder of limited size.

A source is a folder, a file, an address that fsspec knows (``https://…``, ``s3://…``) or ``pipe:COMMAND``,
the output of a command as in WebDataset. Ranges stand in braces:
``https://host/photos-{000000..000041}.tar``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from ...common import remote
from ...errors import TrainingError

_PIPE = "pipe:"


def is_remote(source: str) -> bool:
    """Whether a source has to be fetched."""
    return source.startswith(_PIPE) or remote.is_remote(source)


def expand(sources: Sequence[str]) -> list[str]:
    """Return every shard that the sources name, in order.

    Raises:
        TrainingError: a folder or file is missing, or a folder holds no shard.
    """
    names = [name for source in sources for name in remote.expand(source, TrainingError)]
    return [shard for name in names for shard in _shards(name)]


def _shards(name: str) -> list[str]:
    if is_remote(name):
        return [name]
    path = remote.as_path(name)
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise TrainingError(f"there is no folder or shard {name}")
    found = sorted(str(p) for p in path.rglob("*.tar") if p.is_file())
    if not found:
        raise TrainingError(f"{name} holds no .tar shards; make some with: sprdiff data pack {name} OUT")
    return found


class ShardCache:
    """A folder of fetched shards; when it gets too large, the least recently used ones are deleted.

    Args:
        limit: the size of the folder in bytes.
    """

    def __init__(self, folder: Path, limit: int = 50 * 2**30) -> None:
        self.folder, self.limit = folder, limit

    def path(self, source: str) -> Path:
        """Return the path of a shard; a remote one is fetched if it is not there.

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
            raise TrainingError(f"{source} cannot be stored in {self.folder} ({error})") from error
        self._trim(target)
        return target

    def _fetch(self, source: str, target: Path) -> None:
        partial = target.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        try:
            if source.startswith(_PIPE):
                remote.retried(lambda: _run(source.removeprefix(_PIPE), partial))
            else:
                remote.fetch(source, partial, TrainingError, "train")
            os.replace(partial, target)
        except subprocess.SubprocessError as error:
            raise TrainingError(f"{source} cannot be fetched ({error})") from error
        finally:
            partial.unlink(missing_ok=True)

    def _trim(self, keep: Path) -> None:
        found = []
        for path in self.folder.glob("*.tar"):
            with contextlib.suppress(OSError):  # another process may have deleted it
                stat = path.stat()
                found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


def _run(command: str, path: Path) -> None:
    with path.open("wb") as out:
        subprocess.run(shlex.split(command), stdout=out, stdin=subprocess.DEVNULL, check=True)
