"""The engine of a cluster: Ray Data, whose pool of actors grows with the work; there is one codec in each.

What a worker writes must be within reach of all: a shared file system, or an address. When a worker dies, Ray
repeats what it was at as often as it takes. The starts of each file are counted, and a file at which several
workers have died is given up.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ..common.extras import need
from ..common.messages import reason
from ..errors import BatchError, WeightsError
from .collection import PICTURES, Item
from .progress import Progress
from .work import DIED, Result, Results, RunOptions, do_item, failure

BLOCK = 8
"""How many pictures are handed to a worker at once; their results come back together."""
_MOST_BLOCKS = 20_000
"""With more blocks than these, Ray's bookkeeping would cost more than what is lost with a larger block."""
TRIES = 3
"""How often work on a file is begun before the deaths of its workers are blamed on it."""
_PATIENCE = 10.0
"""How many seconds a cluster has for its first answer."""


class Starts:
    """An actor of the cluster that counts how often work on each file was begun and did not end."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, source: str) -> int:
        """Count a start, and return how many there are."""
        self._begun[source] += 1
        return self._begun[source]

    def end(self, source: str) -> None:
        """Forget a file."""
        del self._begun[source]


class Worker:
    """An actor of Ray Data; the networks stay loaded in it."""

    def __init__(self, options: RunOptions, starts: Any) -> None:
        self._options, self._starts = options, starts
        self._ray = need("ray", "ray", BatchError)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Work on the files of a batch; return their results as JSON."""
        return {"result": [self._do(text, Item(**json.loads(text))) for text in batch["item"]]}

    def _do(self, text: str, item: Item) -> str:
        deaths = self._ray.get(self._starts.begin.remote(item.source)) - 1
        fatal = ""
        try:
            result = failure(item, DIED) if deaths >= TRIES else do_item(self._options, item)
        except WeightsError as error:  # as an exception it would come with all that Ray knows about it
            fatal = str(error)
            result = failure(item, fatal)
        self._starts.end.remote(item.source)
        return json.dumps({"item": text, "fatal": fatal, "result": result.to_json()})


class Cluster:
    """A running Ray cluster."""

    def __init__(self, address: str, workers: int | None = None) -> None:
        """Choose a cluster.

        Args:
            address: as ``ray.init`` takes it: ``auto``, ``host:6379``; ``local`` starts one on this machine.
            workers: how many actors work at most; None: one for each core of the cluster.
        """
        self._address, self._workers = address, workers

    def run(self, options: RunOptions, items: Sequence[Item], progress: Progress) -> Results:
        """Yield each file with its result; see `Engine.run`.

        Raises:
            BatchError: Ray is not installed, there is no such cluster, or it gives up.
            WeightsError: the workers cannot load the networks.
        """
        ray = self._connect()
        try:
            starts = ray.remote(num_cpus=0, max_restarts=-1)(Starts).remote()
            texts = [json.dumps(asdict(item)) for item in items]
            for row in self._rows(ray, options, texts, starts):
                told = json.loads(row["result"])
                if told["fatal"]:
                    raise WeightsError(told["fatal"])
                result = Result.from_json(told["result"])
                progress.opened(len(result.rows))
                progress.advanced(len(result.rows), result.failed)
                yield Item(**json.loads(told["item"])), result
        except ray.exceptions.RayError as error:
            raise BatchError(f"the cluster has given up: {reason(error)}") from error

    def _rows(self, ray: Any, options: RunOptions, texts: list[str], starts: Any) -> Iterable[dict[str, str]]:
        size = max(BLOCK, len(texts) // _MOST_BLOCKS) if options.kind == PICTURES else 1
        blocks = -(-len(texts) // size)
        workers = min(self._workers or max(1, int(ray.cluster_resources().get("CPU", 1))), blocks)
        data = ray.data.from_items([{"item": text} for text in texts], override_num_blocks=blocks)
        made = data.map_batches(
            Worker,
            fn_constructor_args=(options, starts),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_cpus=1,
        )
        rows: Iterable[dict[str, str]] = made.iter_rows()
        return rows

    def _connect(self) -> Any:
        """Connect Ray until the process ends: Ray Data does not always survive a second start."""
        settings = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
        if self._address != "local":
            settings["RAY_NUM_REDIS_GET_RETRIES"] = "1"  # otherwise Ray waits minutes for one that has ended
        os.environ.update(settings | dict(os.environ))
        ray = need("ray", "ray", BatchError)
        need("ray.data", "ray", BatchError)
        _quieten(ray)
        _check_reached(self._address)
        if ray.is_initialized():
            connected = ray.get_runtime_context().gcs_address
            if self._address not in ("auto", "local", connected):
                raise BatchError(f"this process is connected to the Ray cluster at {connected} already")
            return ray
        options: dict[str, Any] = {"include_dashboard": False} if self._address == "local" else {}
        try:
            with _without_stderr():
                ray.init(self._address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except Exception as error:
            raise BatchError(f"there is no Ray cluster at {self._address}: {reason(error)}") from error
        return ray


def _check_reached(address: str) -> None:
    """Check that somebody answers; Ray itself would try for minutes.

    Raises:
        BatchError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise BatchError(f"there is no Ray cluster at {address}: {reason(error)}") from error


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Silence standard error, of C++ too: there the core of Ray says how much it is going to say."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def _quieten(ray: Any) -> None:
    """Switch off Ray's own bars and log lines."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
