"""Photographs of preset `sd`: WebDataset shards, cropped without state.

A process reads from several *lanes* at once, each of which visits one shard after the other and draws a
number of crops from each. Which shard, which photograph and which crop are pure functions of (seed, step,
process, place in the batch), so a resumed run sees exactly the crops that the killed one would have seen,
from any kind of storage.

    draw k of a lane ─ k // DRAWS ─► visit ─► shard (all of them once per epoch, in random order)
                       k %  DRAWS ─► photograph of the shard (random order) ─► crop, flip
"""

from __future__ import annotations

import hashlib
import io
import logging
import tarfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...errors import ImageError, TrainingError
from ...imageio.open import open_rgb
from .photos import SUFFIXES, PhotoStore
from .remote import Cache, expand, is_remote

log = logging.getLogger(__name__)

TILE_MARK = "~"
"""What a tile's name has between that of its photograph and its number (`pack`)."""
LANES = 4
DRAWS = 512
"""Crops from a shard at one visit: some of 256 MB of photographs, which then are worth having fetched."""
AHEAD = 2
"""Batches that are decoded while the networks are busy with an earlier one."""
HELD_OUT = 64
"""One photograph of so many is kept for validation where none is given."""
_SHARD, _PHOTO, _CROP = range(3)


@dataclass(frozen=True)
class Shard:
    """The photographs of a shard: names, and where their bytes lie in the file."""

    path: Path
    names: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    def read(self, index: int) -> bytes:
        """The file of a photograph."""
        offset, size = self.places[index]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def open_shard(source: str, path: Path) -> Shard:
    """Index a shard by its headers; members that are no photographs are passed over.

    Raises:
        TrainingError: it is no tar file, is cut off, or holds no photograph.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            members = [m for m in tar if m.isfile() and m.name.lower().endswith(SUFFIXES)]
        end = path.stat().st_size
    except (tarfile.TarError, OSError, EOFError) as error:
        raise TrainingError(f"{source}: not a readable shard ({error})") from error
    if not members:
        raise TrainingError(f"{source}: holds no photographs")
    if members[-1].offset_data + members[-1].size > end:
        raise TrainingError(f"{source}: is cut off")
    return Shard(path, tuple(Path(m.name).name for m in members), tuple((m.offset_data, m.size) for m in members))


class ShardCrops:
    """Random crops of the photographs in shards, flipped half the time; the interface of `CropSampler`.

    Photographs that cannot be read or are smaller than the crop are passed over.

    Args:
        sources: as `remote.expand` takes them.
        exclude: prefixes of file names to leave out.
        hold_out: whether to leave out what :meth:`validation` shows.
        world: number of processes. workers: threads that decode.
        device: where batches go; to a GPU as bytes, from pinned memory, so that the copy waits for nothing.

    Raises:
        TrainingError: a source is missing.
    """

    def __init__(self, sources: Sequence[str], cache: Cache, crop: int, seed: int, *, world: int = 1,
                 exclude: Sequence[str] = (), hold_out: bool = False, workers: int = 4,
                 device: torch.device | str = "cpu") -> None:  # fmt: skip
        self.sources = expand(sources)
        if not self.sources:
            raise TrainingError("no photographs: give --data")
        self.cache, self.crop, self.seed, self.world = cache, crop, seed, world
        self.exclude, self.hold_out, self.device = tuple(exclude), hold_out, torch.device(device)
        self.lanes = min(LANES, len(self.sources))
        self.decoders = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="decode")
        self.fetchers = ThreadPoolExecutor(self.lanes, thread_name_prefix="fetch")
        self.lock = threading.Lock()
        self.open: dict[int, Future[Shard]] = {}
        self.ahead: dict[tuple[int, int, int], list[Future[np.ndarray]]] = {}

    def batch(self, step: int, rank: int, count: int) -> torch.Tensor:
        """[count,3,crop,crop] float32 in 0-1, channels last, of this step and process.

        Raises:
            TrainingError: a shard cannot be fetched or read, or holds nothing as large as the crop.
        """
        wanted = [(step + i, rank, count) for i in range(1 + AHEAD)]
        for key in [key for key in self.ahead if key not in wanted]:
            for future in self.ahead.pop(key):
                future.cancel()
        # While the networks are busy with this batch, the next ones are decoded.
        for key in wanted:
            if key not in self.ahead:
                self.ahead[key] = self._start(*key)
        pixels = torch.from_numpy(np.stack([f.result() for f in self.ahead.pop(wanted[0])])).permute(0, 3, 1, 2)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)

    def validation(self, count: int) -> PhotoStore:
        """Up to ``count`` photographs that training leaves out, from the first shards.

        Raises:
            TrainingError: as of `batch`.
        """
        found: list[tuple[str, np.ndarray]] = []
        for number in range(len(self.sources)):
            shard = self._shard(number)
            marked = [i for i in self._usable(shard) if held_out(shard.names[i])]
            for index in marked:
                if (photo := _decode(shard, index)) is not None and len(found) < count:
                    found.append((shard.names[index], photo))
            if len(found) >= count or number >= self.lanes:
                break
        if not found:  # too few photographs to keep one back
            found = [(f"crop {i}", self._crop(0, 0, i)) for i in range(2)]
        sizes = np.cumsum([0, *(p.size for _, p in found)])
        shapes = np.array([p.shape[:2] for _, p in found])
        return PhotoStore(np.concatenate([p.ravel() for _, p in found]), sizes[:-1], shapes, tuple(n for n, _ in found))

    def close(self) -> None:
        """End the threads."""
        for pool in (self.decoders, self.fetchers):
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, step: int, rank: int, count: int) -> list[Future[np.ndarray]]:
        per_lane = -(-count // self.lanes)
        return [
            self.decoders.submit(self._crop, rank * self.lanes + j % self.lanes, step * per_lane + j // self.lanes, j)
            for j in range(count)
        ]

    def _crop(self, lane: int, draw: int, place: int) -> np.ndarray:
        visit, number = divmod(draw, DRAWS)
        shard = self._visited(visit, lane)
        order = self._order(shard, visit, lane)
        rng = self._random(_CROP, lane, draw, place)
        for index in (order[(number + i) % len(order)] for i in range(len(order))):
            photo = _decode(shard, index)
            if photo is not None and min(photo.shape[:2]) >= self.crop:
                top, left = (int(rng.integers(side - self.crop + 1)) for side in photo.shape[:2])
                crop = photo[top : top + self.crop, left : left + self.crop]
                return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)
        raise TrainingError(f"{shard.path}: no photograph has both sides of at least {self.crop} pixels")

    def _order(self, shard: Shard, visit: int, lane: int) -> np.ndarray:
        usable = self._usable(shard)
        kept = [i for i in usable if not (self.hold_out and held_out(shard.names[i]))] or usable
        return self._random(_PHOTO, lane, visit).permutation(kept)

    def _usable(self, shard: Shard) -> list[int]:
        usable = [i for i, name in enumerate(shard.names) if not (self.exclude and name.startswith(self.exclude))]
        if not usable:
            raise TrainingError(f"{shard.path}: no photograph is left after --exclude")
        return usable

    def _visited(self, visit: int, lane: int) -> Shard:
        """The shard of a lane's visit; the one after it is fetched meanwhile."""
        number = self._number(visit, lane)
        following = self._number(visit + 1, lane)
        if is_remote(self.sources[following]):
            self._future(following)
        return self._shard(number)

    def _number(self, visit: int, lane: int) -> int:
        epoch, place = divmod(visit * self.lanes * self.world + lane, len(self.sources))
        return int(self._random(_SHARD, epoch).permutation(len(self.sources))[place])

    def _shard(self, number: int) -> Shard:
        shard = self._future(number).result()
        if not shard.path.exists():  # gone from the cache while it was not in use
            with self.lock:
                self.open.pop(number, None)
            shard = self._future(number).result()
        return shard

    def _future(self, number: int) -> Future[Shard]:
        with self.lock:
            future = self.open.pop(number, None)
            if future is None or (future.done() and future.exception() is not None):
                source = self.sources[number]
                future = self.fetchers.submit(lambda: open_shard(source, self.cache.path(source)))
            self.open[number] = future  # the last one used stands last
            while len(self.open) > 8 * self.lanes:
                self.open.pop(next(iter(self.open)))
            return future

    def _random(self, purpose: int, *numbers: int) -> np.random.Generator:
        # The lowest word of the counter counts the draws.
        counter = [0, *numbers, 0, 0, 0][:4]
        return np.random.Generator(np.random.Philox(key=[self.seed, purpose], counter=counter))


def held_out(name: str) -> bool:
    """Whether a photograph is one of those kept for validation, by a hash of its name; all its tiles are, or
    none."""
    photo = name.split(TILE_MARK)[0]
    return int.from_bytes(hashlib.sha256(photo.encode()).digest()[:4], "big") % HELD_OUT == 0


def _decode(shard: Shard, index: int) -> np.ndarray | None:
    try:
        pixels: np.ndarray = open_rgb(io.BytesIO(shard.read(index))).pixels
    except (ImageError, Image.DecompressionBombError) as error:
        log.warning("passed over %s of %s: %s", shard.names[index], shard.path, error)
        return None
    except OSError as error:
        raise TrainingError(f"{shard.path}: cannot be read ({error})") from error
    return pixels
