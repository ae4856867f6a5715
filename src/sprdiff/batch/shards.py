"""WebDataset shards: tar files whose pictures are replaced and whose other members are copied."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from ..common.messages import reason
from ..common.tar import members
from ..errors import BatchError, ImageError, SprdiffError
from ..imageio.kinds import HEAD
from .names import has_controls, is_safe, targets
from .recode import Work
from .storage import MAX_FILE

MAX_NAME = 1024
"""Characters of a member's name."""
_MODE = 0o644
_LATEST = 2**33 - 1
"""The latest time that a plain header can hold."""


@dataclass(frozen=True)
class Member:
    """A picture of a shard.

    Attributes:
        name, target: of the picture and of its output.
        offset, size: where its bytes lie in the file of the shard.
        refused: why it is not read; empty if it is.
    """

    name: str
    target: str
    offset: int
    size: int
    refused: str = ""


class TarShard:
    """A shard, indexed by its headers."""

    def __init__(self, path: Path, work: Work) -> None:
        """Read the headers.

        Raises:
            BatchError: the file is no tar file, damaged, or cut off.
        """
        self.path, self._work = path, work
        found, others = list[Member](), set[str]()
        for member in members(path, BatchError):
            if self._is_ours(member):
                name = member.name[:MAX_NAME]
                found.append(Member(name, "", member.offset_data, member.size, self._refused(member)))
            else:
                others.add(member.name)
        renamed = targets({member.name for member in found}, work.suffix, others)
        self._members = [replace(member, target=renamed[member.name]) for member in found]

    @property
    def count(self) -> int:
        """How many pictures there are, with those that are refused."""
        return len(self._members)

    def pictures(self) -> Iterator[tuple[str, str, bytes | ImageError]]:
        """Yield for each picture its label, the label of the output, and its file or why it is not read.

        Raises:
            BatchError: the shard cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                for member in self._members:
                    yield f":{member.name}", f":{member.target}", self._read(file, member)
        except OSError as error:
            raise BatchError(f"{self.path} cannot be read: {reason(error)}") from error

    def write(self, outputs: Iterator[bytes | None], out: Path) -> None:
        """Write the shard anew with an output in the place of each picture; a failed picture is left out.

        Raises:
            BatchError: the shard cannot be read.
            OSError: the new one cannot be written.
        """
        ours = iter(self._members)
        with open(self.path, "rb") as source, tarfile.open(out, "w") as tar:
            for member in members(self.path, BatchError):
                if self._is_ours(member):
                    target, output = next(ours).target, next(outputs)
                    if output is not None:
                        tar.addfile(_header(target, len(output), member), io.BytesIO(output))
                elif member.isreg():
                    source.seek(member.offset_data)
                    tar.addfile(_header(member.name, member.size, member), source)

    def _read(self, file: IO[bytes], member: Member) -> bytes | ImageError:
        """Read a picture, whose first bytes tell how many it may have."""
        if member.refused:
            return ImageError(member.refused)
        file.seek(member.offset)
        try:
            head = file.read(min(HEAD, member.size))
            if member.size > self._work.most(head):
                return ImageError("it is longer than a file that begins like this can be")
        except SprdiffError as error:
            return ImageError(str(error))
        return head + file.read(member.size - len(head))

    def _is_ours(self, member: tarfile.TarInfo) -> bool:
        """Whether a member is replaced: it is a picture by its name, or would not be safe to copy."""
        return not member.isdir() and (self._refused(member) != "" or self._is_picture(member))

    def _is_picture(self, member: tarfile.TarInfo) -> bool:
        return posixpath.splitext(member.name)[1].lower() in self._work.sources

    def _refused(self, member: tarfile.TarInfo) -> str:
        if len(member.name) > MAX_NAME:
            return f"its name is longer than {MAX_NAME} characters"
        if not is_safe(member.name):
            return "its name leads out of the shard"
        if has_controls(member.name):
            return "its name holds control characters"
        if not member.isreg():
            return "it is a link or a special file, not a picture"
        if member.issparse():
            return "it is a sparse file, which is not read"
        return (
            f"it is longer than {MAX_FILE} bytes"
            if self._is_picture(member) and member.size > MAX_FILE
            else ""
        )


def _header(name: str, size: int, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make a header without owner or rights: equal shards give equal bytes, and no member can be run."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, _MODE
    header.mtime = int(member.mtime) if 0 <= member.mtime <= _LATEST else 0
    return header
