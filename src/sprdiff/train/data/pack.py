"""``sprdiff data pack``: a folder of photographs becomes WebDataset shards, in an order that mixes its
subfolders.

Photographs are copied byte for byte if possible, and otherwise made smaller or encoded again. Large ones are
cut into tiles, so that a crop costs only the decoding of a tile. A shard appears complete or not at all;
``pack.json`` says which are done, so that a second run continues after the last of them.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct
from PIL import Image

from ...common.files import describe, write_atomic
from ...common.structs import from_json, to_json
from ...errors import ImageError, OutputError, TrainingError
from ...imageio.open import open_rgb
from ...imageio.resize import resize
from .shard import SUFFIXES
from .shards import TILE_MARK

log = logging.getLogger(__name__)

INDEX = "pack.json"
COPIED = (".jpg", ".jpeg", ".png", ".webp")
"""Formats that are small and fast to read are copied; others become PNG."""
MAX_NAME = 80
"""The longest name without suffix, in bytes; tar allows 100 in all."""


@dataclass(frozen=True)
class Packing:
    """How photographs are packed.

    Attributes:
        shard_size: a shard ends with the photograph that makes it reach this size in bytes.
        short_side: photographs with a longer short side are made smaller (JPEG, quality 95, 4:4:4); 0: never.
        min_side: photographs with a shorter side are left out, because no crop fits into them.
        tile: photographs with a longer side are cut into tiles of at most this side (JPEG, as above), which
            cover them evenly and are not smaller than `min_side`; 0: never.

    Raises:
        TrainingError: tiles would be smaller than `min_side`.
    """

    shard_size: int = 256 * 2**20
    short_side: int = 1536
    min_side: int = 512
    tile: int = 768

    def __post_init__(self) -> None:
        if self.tile and self.tile < self.min_side:
            raise TrainingError(
                f"tiles of {self.tile} pixels are smaller than the smallest side, {self.min_side}"
            )


class PackedShard(Struct, frozen=True, forbid_unknown_fields=True):
    """A shard that is done; the next one begins with the photograph at position `end`."""

    name: str
    photos: int
    bytes: int
    sha256: str
    end: int


class PackIndex(Struct, frozen=True, forbid_unknown_fields=True):
    """``pack.json``: how and from which photographs (a digest of their names) the shards were packed."""

    packing: Packing
    files: str
    shards: list[PackedShard]


Member = tuple[str, bytes]
"""A file in a shard: its name and its bytes."""


@dataclass(frozen=True)
class Packed:
    """What a folder of shards holds after a run: files (photographs or tiles) and shards, and how many
    photographs the run left out."""

    photos: int
    shards: int
    left_out: int


def pack(
    folder: Path,
    out: Path,
    packing: Packing,
    *,
    workers: int = 4,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Packed:
    """Pack all photographs of a folder and its subfolders into shards; continue where an earlier run was
    killed.

    Args:
        folder: the photographs.
        out: the folder of the shards.
        workers: the number of threads that check and encode photographs.
        advance: a function that is called with the number of photographs that are done, and of all.

    Raises:
        TrainingError: there are no photographs, or the shards were packed from others or with other options.
        OutputError: a file cannot be written.
    """
    files = _files(folder, out)
    index = _open_index(out, packing, files)
    position = index.shards[-1].end if index.shards else 0
    members: list[Member] = []
    size = left_out = 0
    for done, found in _prepared(folder, files, position, packing, workers):
        advance(done, len(files))
        left_out += not found
        members += found
        size += sum(len(data) for _, data in found)
        if members and (size >= packing.shard_size or done == len(files)):
            _write_shard(out, index, members, done)
            members, size = [], 0
    photos = sum(shard.photos for shard in index.shards)
    if not photos:
        raise TrainingError(
            f"{folder} holds no usable photograph (both sides of at least {packing.min_side} pixels)"
        )
    return Packed(photos, len(index.shards), left_out)


def _files(folder: Path, out: Path) -> list[Path]:
    """Return the photographs as paths in the folder, in an order that depends on their names only."""
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}")
    inside = out.resolve()
    found = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    files = [p.relative_to(folder) for p in found if inside not in p.resolve().parents]
    if not files:
        raise TrainingError(f"{folder} holds no photographs")
    return sorted(files, key=lambda p: hashlib.sha256(p.as_posix().encode()).digest())


def _open_index(out: Path, packing: Packing, files: Sequence[Path]) -> PackIndex:
    listed = hashlib.sha256("\n".join(p.as_posix() for p in files).encode()).hexdigest()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / INDEX).exists():
            return PackIndex(packing, listed, [])
        text, message = (out / INDEX).read_bytes(), f"{out / INDEX} is not the index of a packed folder"
        index = from_json(text, PackIndex, TrainingError, message)
        same = (index.packing, index.files) == (packing, listed)
        if not same or any((out / shard.name).stat().st_size != shard.bytes for shard in index.shards):
            raise TrainingError(
                f"{out} was packed from other photographs or in another way: give an empty folder"
            )
        return index
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {describe(error)}") from error


def _prepared(
    folder: Path, files: Sequence[Path], start: int, packing: Packing, workers: int
) -> Iterator[tuple[int, list[Member]]]:
    """Yield the position after every photograph, and its files in the shard; there are none if it is left
    out."""
    names = _names(files)

    def prepare(position: int) -> list[Member]:
        return _prepare(folder / files[position], names[position], packing)

    with ThreadPoolExecutor(workers) as pool:
        # The work is done in pieces, or else the whole folder would be in memory.
        for first in range(start, len(files), 4 * workers):
            piece = range(first, min(first + 4 * workers, len(files)))
            for position, found in zip(piece, pool.map(prepare, piece), strict=True):
                yield position + 1, found


def _names(files: Sequence[Path]) -> list[str]:
    """Return unique names for the shards, without suffix and dots: WebDataset's key of a sample ends at a
    dot."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        name = "_".join(file.with_suffix("").parts).replace(".", "_").replace(TILE_MARK, "_")
        if len(name.encode(errors="replace")) > MAX_NAME:
            name = hashlib.sha256(file.as_posix().encode(errors="replace")).hexdigest()[:32]
        while name in taken:
            name += file.suffix.replace(".", "_").lower()
        taken.add(name)
        names.append(name)
    return names


def _prepare(path: Path, name: str, packing: Packing) -> list[Member]:
    """Return the files that a photograph becomes; there are none if it is left out."""
    try:
        data = path.read_bytes()
        pixels = open_rgb(io.BytesIO(data)).pixels
    except (OSError, ImageError, Image.DecompressionBombError) as error:
        log.warning("left out %s: %s", path, error)
        return []
    short = min(pixels.shape[:2])
    if short < packing.min_side:
        log.warning("left out %s: a side of %d pixels, less than %d", path, short, packing.min_side)
        return []
    reduced = bool(packing.short_side) and short > packing.short_side
    if reduced:
        h, w = (round(side * packing.short_side / short) for side in pixels.shape[:2])
        pixels = resize(pixels, (h, w))
    if packing.tile and max(pixels.shape[:2]) > packing.tile:
        cut = _tiles(pixels, packing.tile)
        return [(f"{name}{TILE_MARK}{i}.jpg", _jpeg(tile)) for i, tile in enumerate(cut)]
    if reduced:
        return [(f"{name}.jpg", _jpeg(pixels))]
    if path.suffix.lower() in COPIED:
        return [(f"{name}{path.suffix.lower()}", data)]
    return [(f"{name}.png", _encode(pixels, "PNG"))]


def _tiles(pixels: Any, side: int) -> Iterator[Any]:
    """Yield tiles of at most `side` pixels that cover a photograph evenly; they overlap if they have to."""
    starts = []
    for length in pixels.shape[:2]:
        count = -(-length // side)
        last = max(0, length - side)
        starts.append([round(last * i / (count - 1)) if count > 1 else 0 for i in range(count)])
    for top in starts[0]:
        for left in starts[1]:
            yield pixels[top : top + side, left : left + side]


def _jpeg(pixels: Any) -> bytes:
    return _encode(pixels, "JPEG", quality=95, subsampling=0)


def _encode(pixels: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _write_shard(out: Path, index: PackIndex, members: Sequence[Member], end: int) -> None:
    """Write the shard, then the index: a kill between the two costs the work of one shard."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)  # without time and owner the same photographs give the same bytes
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    name = f"photos-{len(index.shards):06d}.tar"
    write_atomic(out / name, data, force=True)
    digest = hashlib.sha256(data).hexdigest()
    index.shards.append(PackedShard(name, len(members), len(data), digest, end))
    write_atomic(out / INDEX, to_json(index, indent=1), force=True)
