"""WebDataset shards: tar files whose pictures are replaced and whose other members are copied."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ..common.files import open_regular
from ..errors import BatchError, ImageError, SprdiffError
from ..imageio.kinds import HEAD
from .names import has_controls, is_safe, targets
from .recode import Work
from .stores import MAX_FILE, reason

PIECE = 16
"""Pictures that a worker takes at a time."""
MAX_MEMBERS = 1_000_000
MAX_NAME = 1024
"""Characters of a member's name."""
MAX_NAMES = 2**26
"""Characters of all their names together."""
MAX_EXTENSION = 2**20
"""Bytes of what stands before a member: its long name, or its further attributes, which are read whole."""
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
               tarfile.GNUTYPE_LONGLINK)  # fmt: skip
_MODE = 0o644
_LATEST = 2**33 - 1
"""The latest time that a plain header holds."""
_DAMAGED = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Picture:
    """A picture of a shard: its name, that of its output, and where its bytes lie in the file.

    Attributes:
        refused: why it is not read.
    """

    name: str
    target: str
    offset: int
    size: int
    refused: str = ""


@dataclass(frozen=True)
class Members:
    """Some pictures of a shard, for a worker."""

    pictures: tuple[Picture, ...]
    work: Work

    def __len__(self) -> int:
        return len(self.pictures)

    def label(self, index: int) -> tuple[str, str]:
        """Names of a picture and of its output."""
        return self.pictures[index].name, self.pictures[index].target

    def read(self, path: Path, start: int) -> Iterator[bytes | ImageError]:
        """The files of the pictures from the start-th on, or why there is none.

        Raises:
            BatchError: the shard cannot be read.
        """
        try:
            with open(path, "rb") as file:
                for picture in self.pictures[start:]:
                    if picture.refused:
                        yield ImageError(picture.refused)
                    else:
                        file.seek(picture.offset)
                        yield self._data(file, picture)
        except OSError as error:
            raise BatchError(f"{path} cannot be read: {reason(error)}") from error

    def _data(self, file: IO[bytes], picture: Picture) -> bytes | ImageError:
        """The bytes of a picture, once its beginning has told how many they may be."""
        try:
            head = file.read(min(HEAD, picture.size))
            if picture.size > self.work.most(head):
                return ImageError("longer than a file that begins so can be")
        except SprdiffError as error:
            return ImageError(str(error))
        return head + file.read(picture.size - len(head))


class Shard:
    """A shard and what it is to become.

    Attributes:
        count: how many pictures it has, those that are refused among them.
    """

    def __init__(self, path: Path, work: Work) -> None:
        """Index it by its headers.

        Raises:
            BatchError: it is no tar file, damaged, or cut off.
        """
        self.path, self._work = path, work
        found, others = [], set()
        for member in _members(path):
            if self._is_picture(member):
                refused = self._refused(member)
                name = member.name[:MAX_NAME]
                found.append(Picture(name, "", member.offset_data, member.size, refused))
            else:
                others.add(member.name)
        renamed = targets({picture.name for picture in found}, work.suffix, others)
        self._pictures = [replace(picture, target=renamed[picture.name]) for picture in found]
        self.count = len(self._pictures)

    def pieces(self) -> list[Members]:
        """Its pictures in order, some for each worker."""
        starts = range(0, self.count, PIECE)
        return [Members(tuple(self._pictures[start : start + PIECE]), self._work) for start in starts]

    def assemble(self, outputs: Iterator[bytes | None], out: Path) -> None:
        """Write the shard's successor: an output in the place of each picture (None: it is left out).

        Raises:
            BatchError: the shard cannot be read.
            OSError: it cannot be written.
        """
        pictures = iter(self._pictures)
        with open(self.path, "rb") as source, tarfile.open(out, "w") as tar:
            for member in _members(self.path):
                if self._is_picture(member):
                    target, output = next(pictures).target, next(outputs)
                    if output is not None:
                        tar.addfile(_header(target, len(output), member), _Bytes(output))
                elif member.isreg():
                    source.seek(member.offset_data)
                    tar.addfile(_header(member.name, member.size, member), source)

    def _is_picture(self, member: tarfile.TarInfo) -> bool:
        """Whether it is ours: a picture by its name, or something that would not be safe to copy."""
        if member.isdir():
            return False
        return self._refused(member) != "" or posixpath.splitext(member.name)[1].lower() in self._work.sources

    def _refused(self, member: tarfile.TarInfo) -> str:
        if len(member.name) > MAX_NAME:
            return f"its name is longer than {MAX_NAME} characters"
        if not is_safe(member.name):
            return "its name leads out of the shard"
        if has_controls(member.name):
            return "its name holds control characters"
        if not member.isreg():
            return "a link or a special file, not a picture"
        if member.issparse():
            return "a sparse file, which is not read"
        picture = posixpath.splitext(member.name)[1].lower() in self._work.sources
        return f"longer than {MAX_FILE} bytes" if picture and member.size > MAX_FILE else ""


class _Bytes:
    """Bytes as a file to be read once."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def read(self, size: int = -1) -> bytes:
        size = len(self._rest) if size < 0 else size
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def _header(name: str, size: int, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A header without owner or rights: the same shard gives the same bytes, and nothing in it can be run."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, _MODE
    header.mtime = int(member.mtime) if 0 <= member.mtime <= _LATEST else 0
    return header


class _Member(tarfile.TarInfo):
    """A member whose extensions are read only if they are of a size that a member may need."""

    def _proc_member(self, archive: Any) -> Any:
        # The place that tarfile has for it; what it returns is the member, or the one that these belong to.
        if self.type in _EXTENSIONS:
            archive.extensions += self.size if self.type == tarfile.XGLTYPE else 0
            if self.size < 0 or max(self.size, archive.extensions) > MAX_EXTENSION:
                raise tarfile.ReadError(f"a name or attributes of {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE and self._sparse_structs[1]:  # type: ignore[attr-defined]
            raise tarfile.ReadError("a sparse file of many pieces")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_10(self, following: Any, pax_headers: object, archive: object) -> None:
        following.sparse = []  # its map, of any length, is not read: sparse files are refused


class _Archive(tarfile.TarFile):
    """Attributes: extensions, bytes of those that hold for all members."""

    tarinfo = _Member
    extensions = 0


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, checked to follow each other up to its proper end.

    Raises:
        BatchError: they do not.
    """
    try:
        with open_regular(path) as file:
            yield from _checked(path, file)
    except _DAMAGED as error:
        raise BatchError(f"{path.name} is no readable tar file: {reason(error)}") from error


def _checked(path: Path, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    end = names = 0
    with _Archive.open(fileobj=file, mode="r:") as tar:
        for count, member in enumerate(tar, 1):
            names += len(member.name)
            if count > MAX_MEMBERS or names > MAX_NAMES:
                raise tarfile.ReadError(f"more than {MAX_MEMBERS} members, or {MAX_NAMES} characters of names")
            # A negative size leads tarfile round in circles (CVE-2025-8194).
            if member.size < 0 or member.offset_data < end:
                raise tarfile.ReadError("a member has no possible size")
            end = member.offset_data
            forget: Any = tar
            forget.members = []  # they would be kept for lookups by name
            yield member
        after = tar.offset
    file.seek(after)
    # Where a header is damaged or missing tarfile ends without a word.
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("cut off, or damaged after its first members")
