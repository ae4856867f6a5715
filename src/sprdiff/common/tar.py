"""A reader of tar files from unknown sources: sizes are checked before anything is read."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import SprdiffError
from .files import open_regular
from .messages import reason

MAX_MEMBERS = 1_000_000
MAX_NAMES = 2**26
"""The largest total length of the members' names, in characters."""
MAX_EXTENSION = 2**20
"""The largest size in bytes of a member's long name or attributes, which tarfile reads whole."""
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DAMAGED = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError, MemoryError)


def members(path: Path, error: type[SprdiffError] = SprdiffError) -> Iterator[tarfile.TarInfo]:
    """Iterate over the members of a tar file; check that they follow each other up to its proper end.

    Raises:
        SprdiffError: of the class `error`: the file is no tar file, damaged, cut off, or beyond the limits.
    """
    try:
        with open_regular(path) as file:
            yield from _checked(file)
    except _DAMAGED as caught:
        raise error(f"{path.name} is no readable tar file: {reason(caught)}") from caught


def _checked(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    end = names = 0
    with _Archive.open(fileobj=file, mode="r:") as tar:
        for count, member in enumerate(tar, 1):
            names += len(member.name)
            if count > MAX_MEMBERS or names > MAX_NAMES:
                raise tarfile.ReadError(
                    f"more than {MAX_MEMBERS} members, or {MAX_NAMES} characters of names"
                )
            # A negative size sends tarfile into an endless loop (CVE-2025-8194).
            if member.size < 0 or member.offset_data < end:
                raise tarfile.ReadError("a member has no possible size")
            end = member.offset_data
            forget: Any = tar
            forget.members = []  # tarfile would keep all members for lookups by name
            yield member
        after = tar.offset
    file.seek(after)
    # If a header is damaged or missing, tarfile ends without an error.
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("cut off, or damaged after its first members")


class _Member(tarfile.TarInfo):
    """A member whose extensions are read only if they are not larger than a member may need."""

    def _proc_member(self, archive: Any) -> Any:
        # tarfile's own hook; it returns the member, or the one that these extensions belong to.
        if self.type in _EXTENSIONS:
            archive.extensions += self.size if self.type == tarfile.XGLTYPE else 0
            if self.size < 0 or max(self.size, archive.extensions) > MAX_EXTENSION:
                raise tarfile.ReadError(f"a name or attributes of {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE and self._sparse_structs[1]:  # type: ignore[attr-defined]
            raise tarfile.ReadError("a sparse file of many pieces")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_10(self, following: Any, pax_headers: object, archive: object) -> None:
        following.sparse = []  # the map of a sparse file may have any length: it is not read


class _Archive(tarfile.TarFile):
    """A tar file that counts the bytes of those extensions that hold for all members."""

    tarinfo = _Member
    extensions = 0
