"""Photographs for training: they are decoded once into one memory map and then cropped at random.

A crop depends on seed, step, rank and its index in the batch only. A resumed run therefore sees exactly the
crops that the killed one would have seen, and no position has to be saved.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ...common.messages import reason
from ...errors import ImageError, TrainingError
from ...imageio.open import open_rgb
from .shard import SUFFIXES, Shard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotoStore:
    """All photographs in one flat uint8 array: photo i is ``pixels[offset_i :][: h_i * w_i * 3]`` as
    [h,w,3]."""

    pixels: np.ndarray
    offsets: np.ndarray
    shapes: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def photo(self, index: int) -> np.ndarray:
        """Return a view of a photograph, uint8 [h,w,3]."""
        h, w = (int(v) for v in self.shapes[index])
        start = int(self.offsets[index])
        return self.pixels[start : start + h * w * 3].reshape(h, w, 3)

    def select(self, keep: np.ndarray) -> PhotoStore:
        """Return a store of the photographs where `keep` is true; it shares the pixels."""
        names = tuple(n for n, k in zip(self.names, keep, strict=True) if k)
        return PhotoStore(self.pixels, self.offsets[keep], self.shapes[keep], names)


def open_store(sources: list[Path], cache: Path, exclude: list[str]) -> PhotoStore:
    """Open the photographs of folders and ``.tar`` shards; the first time they are decoded into the folder
    `cache`.

    Args:
        exclude: prefixes of file names that are left out, such as a collection whose licence does not fit.

    Raises:
        TrainingError: a source is missing, no photograph can be read, or none is left.
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
            raise TrainingError(f"there is no folder or shard {source}")
    if not files:
        raise TrainingError(f"there are no photographs or .tar shards in {', '.join(map(str, sources))}")
    return files


def _members(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every photograph."""
    for path in files:
        if path.suffix.lower() == ".tar":
            shard = Shard.open(str(path), path)
            yield from ((name, shard.read(i)) for i, name in enumerate(shard.names))
            continue
        try:
            yield path.name, path.read_bytes()
        except OSError as error:
            raise TrainingError(f"{path} cannot be read: {reason(error)}") from error


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
    return np.ascontiguousarray(pixels)


class CropSampler:
    """Draws random, augmented crops; the chance of a photograph is proportional to its area.

    A crop is mirrored, turned and made smaller at random, and its brightness and colour are changed a little.
    Crops that are made smaller stand for large photographs that are coded at a smaller scale. All photographs
    are on `device` as bytes.

    Raises:
        TrainingError: no photograph is as large as the crop.
    """

    REDUCED, SMALLEST = 0.5, 0.5
    """The share of the crops that are made smaller, and the smallest factor."""
    TURNED, RECOLOURED = 0.3, 0.5

    def __init__(
        self, store: PhotoStore, crop: int, seed: int, device: str = "cpu", *, augment: bool = True
    ) -> None:
        keep = store.shapes.min(axis=1) >= crop
        if not keep.any():
            raise TrainingError(f"no photograph has both sides of at least {crop} pixels")
        self.store, self.crop, self.seed, self.augment = store.select(keep), crop, seed, augment
        areas = self.store.shapes.prod(axis=1).astype(np.float64)
        self.cumulative = np.cumsum(areas) / np.sum(areas)
        flat = np.asarray(store.pixels)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # torch warns that the array is read-only; nothing writes to it
            self._pixels = torch.from_numpy(flat).to(device)

    def batch(self, step: int, rank: int, count: int) -> torch.Tensor:
        """Return the crops of a step and a process, float32 [count,3,crop,crop] in 0-1, channels last."""
        # The lowest word of the counter counts the draws; with the step there, steps would share random
        # numbers.
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, rank, step, 0]))
        crops = torch.stack([self._crop(rng) for _ in range(count)])
        return crops.contiguous(memory_format=torch.channels_last)

    def _crop(self, rng: np.random.Generator) -> torch.Tensor:
        """Return one crop, float32 [3,crop,crop]."""
        index = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.store) - 1)
        height, width = (int(side) for side in self.store.shapes[index])
        side = self.crop
        if self.augment and rng.random() < self.REDUCED:
            smallest = max(self.SMALLEST, side / min(height, width))
            side = min(round(side / math.exp(rng.uniform(math.log(smallest), 0))), height, width)
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        start = int(self.store.offsets[index])
        photo = self._pixels[start : start + 3 * height * width].view(height, width, 3)
        crop = photo[top : top + side, left : left + side].permute(2, 0, 1).float().div_(255)
        if side != self.crop:
            size = (self.crop, self.crop)
            crop = F.interpolate(crop[None], size, mode="bilinear", antialias=True)[0]
        return self._changed(crop, rng) if self.augment else crop

    def _changed(self, crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Mirror, turn and recolour a crop at random."""
        if rng.random() < 0.5:
            crop = crop.flip(2)
        if rng.random() < self.TURNED:
            crop = crop.rot90(int(rng.integers(1, 4)), (1, 2))
        if rng.random() < self.RECOLOURED:
            gain = torch.from_numpy((rng.uniform(0.8, 1.15) * rng.uniform(0.95, 1.05, 3)).astype(np.float32))
            if crop.is_cuda:  # the copy from pinned memory does not wait for the device
                gain = gain.pin_memory().to(crop.device, non_blocking=True)
            crop = crop.mul(gain[:, None, None]).clamp_(0, 1).pow(float(rng.uniform(0.85, 1.2)))
        return crop


def holdout(store: PhotoStore, every: int = 64) -> tuple[PhotoStore, PhotoStore]:
    """Split the store into photographs for training and for validation: one in 64, by a hash of its name."""
    marks = np.array(
        [int.from_bytes(hashlib.sha256(n.encode()).digest()[:4], "big") % every == 0 for n in store.names]
    )
    if not marks.any() or marks.all():
        marks[:] = False
        marks[0] = True
    if len(store) == 1:
        return store, store
    return store.select(~marks), store.select(marks)
