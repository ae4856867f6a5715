"""Photographs for training: decoded once into one memory map, then cropped without state.

The crop of (seed, step, rank, index) is a pure function of those numbers, so a resumed run sees exactly the
crops that the killed one would have seen, and no worker or cursor has to be saved.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...errors import ImageError, TrainingError
from ...imageio.open import open_rgb
from ...imageio.resize import resize

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
MAX_SHORT_SIDE = 768
"""Larger photographs are reduced to this short side: the scale of what `tiny` is measured on."""


@dataclass(frozen=True)
class PhotoStore:
    """All photographs as one flat uint8 array; photo ``i`` is ``pixels[offset_i :][: h_i * w_i * 3]`` as [h,w,3]."""

    pixels: np.ndarray
    offsets: np.ndarray
    shapes: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def photo(self, index: int) -> np.ndarray:
        """[h,w,3] uint8 view."""
        h, w = (int(v) for v in self.shapes[index])
        start = int(self.offsets[index])
        return self.pixels[start : start + h * w * 3].reshape(h, w, 3)

    def select(self, keep: np.ndarray) -> PhotoStore:
        """The store restricted to the photos where ``keep`` is true; pixels are shared."""
        names = tuple(n for n, k in zip(self.names, keep, strict=True) if k)
        return PhotoStore(self.pixels, self.offsets[keep], self.shapes[keep], names)


def open_store(sources: list[Path], cache: Path, exclude: list[str]) -> PhotoStore:
    """Open the photographs of folders and ``.tar`` shards, decoding them into ``cache`` the first time.

    Args:
        exclude: prefixes of file names to leave out (a source of photos, for its licence).

    Raises:
        TrainingError: a source is missing, holds no readable photo, or none is left.
    """
    files = _source_files(sources)
    key = hashlib.sha256(
        json.dumps([(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode()
    )
    base = cache / key.hexdigest()[:16]
    index = base.with_suffix(".json")
    if not index.exists():
        _decode_all(files, base)
    meta = json.loads(index.read_text())
    store = PhotoStore(
        np.memmap(base.with_suffix(".u8"), dtype=np.uint8, mode="r"),
        np.array(meta["offsets"], dtype=np.int64),
        np.array(meta["shapes"], dtype=np.int64),
        tuple(meta["names"]),
    )
    keep = np.array([not n.startswith(tuple(exclude)) if exclude else True for n in store.names], dtype=bool)
    if not keep.any():
        raise TrainingError("no photograph is left after --exclude")
    return store.select(keep)


def _source_files(sources: list[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            found = sorted(p for p in source.rglob("*") if p.suffix.lower() in (*SUFFIXES, ".tar"))
            files += [p for p in found if p.is_file()]
        elif source.is_file():
            files.append(source)
        else:
            raise TrainingError(f"{source}: no such folder or shard")
    if not files:
        raise TrainingError(f"no photographs or .tar shards in {', '.join(map(str, sources))}")
    return files


def _members(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        try:
            if path.suffix.lower() != ".tar":
                yield path.name, path.read_bytes()
                continue
            with tarfile.open(path) as shard:
                for member in shard:
                    if member.isfile() and member.name.lower().endswith(SUFFIXES):
                        handle = shard.extractfile(member)
                        if handle is not None:
                            yield Path(member.name).name, handle.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise TrainingError(f"{path}: not readable ({error})") from error


def _decode_all(files: list[Path], base: Path) -> None:
    base.parent.mkdir(parents=True, exist_ok=True)
    partial = base.with_suffix(f".{os.getpid()}.part")
    names: list[str] = []
    shapes: list[tuple[int, int]] = []
    offsets: list[int] = []
    try:
        with partial.open("wb") as out:
            for name, data in _members(files):
                pixels = _decode(name, data)
                if pixels is None:
                    continue
                names.append(name)
                shapes.append((pixels.shape[0], pixels.shape[1]))
                offsets.append(out.tell())
                out.write(pixels.tobytes())
        if not names:
            raise TrainingError("none of the files could be read as a photograph")
        os.replace(partial, base.with_suffix(".u8"))
    finally:
        partial.unlink(missing_ok=True)
    index = base.with_suffix(f".{os.getpid()}.index")
    index.write_text(json.dumps({"names": names, "shapes": shapes, "offsets": offsets}))
    os.replace(index, base.with_suffix(".json"))
    log.info("decoded %d photographs into %s", len(names), base.with_suffix(".u8"))


def _decode(name: str, data: bytes) -> np.ndarray | None:
    try:
        pixels = open_rgb(io.BytesIO(data)).pixels
    except (ImageError, Image.DecompressionBombError) as error:
        log.warning("skipped %s: %s", name, error)
        return None
    short = min(pixels.shape[:2])
    if short > MAX_SHORT_SIDE:
        h, w = (round(side * MAX_SHORT_SIDE / short) for side in pixels.shape[:2])
        pixels = resize(pixels, (h, w))
    return np.ascontiguousarray(pixels)


class CropSampler:
    """Random crops, flipped half the time; a photo's chance grows with the square of its area.

    Large photographs look like what users send (smooth at the scale of a crop), thumbnails do not: among 5,000
    thumbnails and 650 photographs of twice their area, a third of the crops come from the latter.

    Raises:
        TrainingError: no photo is as large as the crop.
    """

    def __init__(self, store: PhotoStore, crop: int, seed: int) -> None:
        keep = store.shapes.min(axis=1) >= crop
        if not keep.any():
            raise TrainingError(f"no photograph has both sides of at least {crop} pixels")
        self.store, self.crop, self.seed = store.select(keep), crop, seed
        areas = self.store.shapes.prod(axis=1).astype(np.float64)
        self.cumulative = np.cumsum(areas**2) / np.sum(areas**2)

    def batch(self, step: int, rank: int, count: int) -> torch.Tensor:
        """[count,3,crop,crop] float32 in 0-1, channels last, of this step and process."""
        # The lowest word of the counter counts the draws: a step there would read the stream of its neighbours.
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, rank, step, 0]))
        crops = np.stack([self._crop(rng) for _ in range(count)])
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
        return pixels.to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        index = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.store) - 1)
        photo = self.store.photo(index)
        top = int(rng.integers(photo.shape[0] - self.crop + 1))
        left = int(rng.integers(photo.shape[1] - self.crop + 1))
        crop = photo[top : top + self.crop, left : left + self.crop]
        return crop[:, ::-1] if rng.random() < 0.5 else crop


def holdout(store: PhotoStore, every: int = 64) -> tuple[PhotoStore, PhotoStore]:
    """Split off every 64th photo by a hash of its name, for validation when none is given: (training, validation)."""
    marks = np.array([int.from_bytes(hashlib.sha256(n.encode()).digest()[:4], "big") % every == 0 for n in store.names])
    if not marks.any() or marks.all():
        marks[:] = False
        marks[0] = True
    if len(store) == 1:
        return store, store
    return store.select(~marks), store.select(marks)
