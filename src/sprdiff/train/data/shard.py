"""One shard: a tar file of photographs, read at any place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...common.messages import reason
from ...common.tar import members
from ...errors import TrainingError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""The files that count as photographs."""


@dataclass(frozen=True)
class Shard:
    """The photographs of a shard: their names, and the offset and size of their bytes in the file."""

    path: Path
    names: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    @classmethod
    def open(cls, source: str, path: Path) -> Shard:
        """Read the headers of a shard; members that are no photographs are left out.

        Args:
            source: the shard's name for messages.

        Raises:
            TrainingError: it is no tar file, or is cut off.
        """
        try:
            found = [
                (Path(member.name).name, (member.offset_data, member.size))
                for member in members(path, TrainingError)
                if member.isfile() and member.name.lower().endswith(SUFFIXES)
            ]
        except TrainingError as error:
            raise TrainingError(
                f"{source} is not a readable shard ({reason(error.__cause__ or error)})"
            ) from error
        return cls(path, tuple(name for name, _ in found), tuple(place for _, place in found))

    def read(self, index: int) -> bytes:
        """Read the file of a photograph.

        Raises:
            TrainingError: the shard cannot be read.
        """
        offset, size = self.places[index]
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be read ({error})") from error
