"""Random crops of photographs in WebDataset shards, for preset `sd`.

A process reads from several *lanes* at once. A lane visits one shard after another and draws a number of
crops from each. The shard, the photograph and the crop depend on seed, step, process and place in the batch
only: a resumed run sees exactly the crops that the killed one would have seen, from any kind of storage.

    draw k of a lane ─ k // DRAWS ─► visit ─► shard (all of them once per epoch, in random order)
                       k %  DRAWS ─► photograph of the shard (random order) ─► crop, flip
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...errors import ImageError, TrainingError
from ...imageio.open import open_rgb
from .photos import PhotoStore
from .remote import ShardCache, expand, is_remote
from .shard import Shard

log = logging.getLogger(__name__)

TILE_MARK = "~"
"""The name of a tile is that of its photograph, this mark and a number (`pack`)."""
LANES = 4
DRAWS = 512
"""Crops that are drawn from a shard at one visit; so many make it worthwhile to fetch 256 MB."""
AHEAD = 2
"""How many batches are decoded in advance."""
HELD_OUT = 64
"""One photograph in so many is kept for validation if no others are given."""
_SHARD, _PHOTO, _CROP = range(3)


def open_shard(source: str, path: Path) -> Shard:
    """Open a shard that must hold photographs.

    Raises:
        TrainingError: it is no tar file, is cut off, or holds no photograph.
    """
    shard = Shard.open(source, path)
    if not shard.names:
        raise TrainingError(f"{source} holds no photographs")
    return shard


class ShardCrops:
    """Draws random crops of the photographs in shards, half of them mirrored; the interface is that of
    `CropSampler`.

    Photographs that cannot be read or are smaller than the crop are skipped.

    Args:
        sources: the shards, as `remote.expand` takes them.
        exclude: prefixes of file names that are left out.
        hold_out: whether the photographs of :meth:`validation` are left out.
        world: the number of processes.
        workers: the number of threads that decode.
        device: where batches go. They go to a GPU as bytes from pinned memory, so that the copy waits for
            nothing.

    Raises:
        TrainingError: a source is missing.
    """

    def __init__(
        self,
        sources: Sequence[str],
        cache: ShardCache,
        crop: int,
        seed: int,
        *,
        world: int = 1,
        exclude: Sequence[str] = (),
        hold_out: bool = False,
        workers: int = 4,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sources = expand(sources)
        if not self.sources:
            raise TrainingError("there are no photographs: give --data")
        self.cache, self.crop, self.seed, self.world = cache, crop, seed, world
        self.exclude, self.hold_out, self.device = tuple(exclude), hold_out, torch.device(device)
        self.lanes = min(LANES, len(self.sources))
        self.decoders = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="decode")
        self.fetchers = ThreadPoolExecutor(self.lanes, thread_name_prefix="fetch")
        self.lock = threading.Lock()
        self.open: dict[int, Future[Shard]] = {}
        self.ahead: dict[tuple[int, int, int], list[Future[np.ndarray]]] = {}

    def batch(self, step: int, rank: int, count: int) -> torch.Tensor:
        """Return the crops of a step and a process, float32 [count,3,crop,crop] in 0-1, channels last.

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
        pixels = torch.from_numpy(np.stack([f.result() for f in self.ahead.pop(wanted[0])])).permute(
            0, 3, 1, 2
        )
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)

    def validation(self, count: int) -> PhotoStore:
        """Return up to `count` photographs of the first shards that training leaves out.

        Raises:
            TrainingError: a shard cannot be fetched or read.
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
        if not found:  # there are too few photographs to keep one
            found = [(f"crop {i}", self._crop(0, 0, i)) for i in range(2)]
        sizes = np.cumsum([0, *(p.size for _, p in found)])
        shapes = np.array([p.shape[:2] for _, p in found])
        return PhotoStore(
            np.concatenate([p.ravel() for _, p in found]), sizes[:-1], shapes, tuple(n for n, _ in found)
        )

    def close(self) -> None:
        """Stop the threads."""
        for pool in (self.decoders, self.fetchers):
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, step: int, rank: int, count: int) -> list[Future[np.ndarray]]:
        per_lane = -(-count // self.lanes)
        return [
            self.decoders.submit(
                self._crop, rank * self.lanes + j % self.lanes, step * per_lane + j // self.lanes, j
            )
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
        raise TrainingError(
            f"{shard.path} holds no photograph with both sides of at least {self.crop} pixels"
        )

    def _order(self, shard: Shard, visit: int, lane: int) -> np.ndarray:
        usable = self._usable(shard)
        kept = [i for i in usable if not (self.hold_out and held_out(shard.names[i]))] or usable
        return self._random(_PHOTO, lane, visit).permutation(kept)

    def _usable(self, shard: Shard) -> list[int]:
        usable = [
            i for i, name in enumerate(shard.names) if not (self.exclude and name.startswith(self.exclude))
        ]
        if not usable:
            raise TrainingError(f"{shard.path} holds no photograph that is left after --exclude")
        return usable

    def _visited(self, visit: int, lane: int) -> Shard:
        """Return the shard of a lane's visit, and begin to fetch the next one."""
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
        if not shard.path.exists():  # the cache has deleted it meanwhile
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
            self.open[number] = future  # the most recently used one is the last
            while len(self.open) > 8 * self.lanes:
                self.open.pop(next(iter(self.open)))
            return future

    def _random(self, purpose: int, *numbers: int) -> np.random.Generator:
        # The lowest word of the counter counts the draws.
        counter = [0, *numbers, 0, 0, 0][:4]
        return np.random.Generator(np.random.Philox(key=[self.seed, purpose], counter=counter))


def held_out(name: str) -> bool:
    """Whether a photograph is kept for validation, by a hash of its name; the tiles of a photograph stay
    together."""
    photo = name.split(TILE_MARK)[0]
    return int.from_bytes(hashlib.sha256(photo.encode()).digest()[:4], "big") % HELD_OUT == 0


def _decode(shard: Shard, index: int) -> np.ndarray | None:
    try:
        pixels: np.ndarray = open_rgb(io.BytesIO(shard.read(index))).pixels
    except (ImageError, Image.DecompressionBombError) as error:
        log.warning("skipped %s of %s: %s", shard.names[index], shard.path, error)
        return None
    return pixels
