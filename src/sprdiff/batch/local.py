"""The engine of one machine: a pool of processes, with one codec on one thread in each.

Pictures are handed out one by one. So are those of a container, which this process reads and writes: a large
container keeps all cores busy, and a picture that kills its process fails alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..common.processes import Processes, available_cores
from ..common.remote import is_remote
from .collection import PICTURES, Item
from .manifest import ManifestRow
from .progress import Progress
from .work import DIED, InputPicture, Recoded, Results, RunOptions, do_item, failure, local_copy


class Local:
    """The cores of this machine."""

    def __init__(self, jobs: int | None = None, pool: Callable[[int], Any] = Processes) -> None:
        """Choose how many processes work.

        Args:
            jobs: how many; None: one for each core.
            pool: makes a pool of so many, which works as `Processes` does.
        """
        self.jobs, self._pool = jobs or available_cores(), pool

    def run(self, options: RunOptions, items: Sequence[Item], progress: Progress) -> Results:
        """Yield each file with its result; see `Engine.run`."""
        with self._pool(self.jobs) as pool:
            if options.kind != PICTURES:
                yield from _containers(pool, options, items, progress)
                return
            for item, result in pool.apply(functools.partial(do_item, options), items):
                done = result or failure(item, DIED)
                progress.advanced(1, done.failed)
                yield item, done


def _containers(pool: Any, options: RunOptions, items: Sequence[Item], progress: Progress) -> Results:
    with TemporaryDirectory(prefix="sprdiff-") as name:
        for item, path in _one_ahead(items, Path(name)):
            yield item, do_item(options, item, path.result, functools.partial(_in_order, pool), progress)
            if is_remote(item.source) and path.exception() is None:
                path.result().unlink()


def _in_order(
    pool: Any, function: Callable[[InputPicture], Recoded], pictures: Iterable[InputPicture]
) -> Iterator[Recoded]:
    """Yield the results of a pool in the order of the pictures."""
    early, number = dict[int, Recoded](), 0
    for picture, result in pool.apply(function, pictures):
        early[picture.number] = result or (ManifestRow(picture.source, picture.target, error=DIED), None)
        while number in early:
            yield early.pop(number)
            number += 1


def _one_ahead(items: Sequence[Item], folder: Path) -> Iterator[tuple[Item, Future[Path]]]:
    """Yield each container with the path where it will be; the next is fetched while one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
        following = pool.submit(local_copy, items[0], folder)
        for number, item in enumerate(items):
            path = following
            if number + 1 < len(items):
                following = pool.submit(local_copy, items[number + 1], folder)
            yield item, path
