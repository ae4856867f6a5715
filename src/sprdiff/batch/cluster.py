"""The engine of a cluster: Ray Data, whose pool of actors grows with the work; one codec in each.

What a worker writes must be within reach of all: a shared file system, or an address. Ray repeats what a worker was
at when it died, as often as it takes. What is finished is found by the repetition and not made again; what its
worker died of too often is given up, for which the starts of each unit are counted.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import BatchError, WeightsError
from .local import Results
from .needs import need
from .source import PICTURES, Unit
from .stores import reason
from .watcher import Watcher
from .work import DIED, Job, Result, discard, do_container, do_picture, failure, result_of

BLOCK = 8
"""Pictures that a worker takes at a time; their rows come back together."""
_MOST_BLOCKS = 20_000
"""Beyond, the bookkeeping of Ray would cost more than what is lost with a larger block."""
TRIES = 3
"""How often a unit is begun before its worker's deaths are put down to it."""


_PATIENCE = 10.0
"""Seconds for the first answer of a cluster."""


class Starts:
    """Counts how often each unit was begun and not ended; an actor of the cluster."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, n: int) -> int:
        """How often, this time included."""
        self._begun[n] += 1
        return self._begun[n]

    def end(self, n: int) -> None:
        """Forget a unit."""
        del self._begun[n]


class Worker:
    """What an actor of Ray Data does; the networks stay loaded in it."""

    def __init__(self, job: Job, starts: Any) -> None:
        self.job, self._starts, self._ray = job, starts, need("ray", "ray")

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Work on the units of a batch."""
        done = [self._row(Unit(**json.loads(text))) for text in batch["unit"]]
        return {name: [row[name] for row in done] for name in done[0]}

    def _row(self, unit: Unit) -> dict[str, Any]:
        deaths = self._ray.get(self._starts.begin.remote(unit.n)) - 1
        fatal = ""
        try:
            result = self._do(unit, deaths)
        except WeightsError as error:  # as an exception it would be told with all that Ray knows about it
            fatal = str(error)
            result = failure(unit, fatal)
        self._starts.end.remote(unit.n)
        about = {"pictures": result.pictures, "failed": result.failed, "again": result.again}
        return {"n": unit.n, "lines": b"".join(result.lines), "fatal": fatal, **about}

    def _do(self, unit: Unit, deaths: int) -> Result:
        guilty = deaths >= TRIES
        if self.job.kind != PICTURES and self.job.folder is not None:
            return do_container(self.job, unit, blamed=guilty)  # of a container one picture is guilty
        if guilty:
            return failure(unit, DIED)
        return result_of(do_picture(self.job, unit)) if self.job.kind == PICTURES else do_container(self.job, unit)


class Cluster:
    """A running Ray cluster."""

    def __init__(self, address: str, workers: int | None = None) -> None:
        """An engine.

        Args:
            address: as ``ray.init`` takes it: ``auto``, ``host:6379``; ``local`` starts one on this machine.
            workers: most actors at work; None: one for each core of the cluster.
        """
        self._address, self._workers = address, workers

    def run(self, job: Job, units: Iterable[Unit], folder: Path, watcher: Watcher) -> Results:
        """See `Engine.run`.

        Raises:
            BatchError: Ray is not installed, there is no such cluster, or it gives up.
            WeightsError: the workers cannot load the networks.
        """
        ray = self._connect()
        try:
            waiting = {unit.n: unit for unit in units}
            starts = ray.remote(num_cpus=0, max_restarts=-1)(Starts).remote()
            for row in self._rows(ray, job, list(waiting.values()), starts):
                if row["fatal"]:
                    raise WeightsError(row["fatal"])
                unit = waiting.pop(int(row["n"]))
                result = Result([row["lines"]], int(row["pictures"]), int(row["failed"]), bool(row["again"]))
                watcher.opened(result.pictures)
                watcher.advanced(result.pictures, result.failed)
                yield unit, result
                if job.folder is not None and not result.again:
                    discard(Path(job.folder) / str(unit.n))
            assert not waiting
        except ray.exceptions.RayError as error:
            raise BatchError(f"the cluster has given up: {reason(error)}") from error

    def _rows(self, ray: Any, job: Job, units: list[Unit], starts: Any) -> Iterable[dict[str, Any]]:
        size = max(BLOCK, len(units) // _MOST_BLOCKS) if job.kind == PICTURES else 1
        blocks = -(-len(units) // size)
        workers = min(self._workers or max(1, int(ray.cluster_resources().get("CPU", 1))), blocks)
        items = [{"unit": json.dumps(asdict(unit))} for unit in units]
        made = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
            Worker,
            fn_constructor_args=(job, starts),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_cpus=1,
        )
        rows: Iterable[dict[str, Any]] = made.iter_rows()
        return rows

    def _connect(self) -> Any:
        """Ray, connected; it stays so until the process ends: Ray Data does not always survive a second start."""
        settings = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
        if self._address != "local":
            settings["RAY_NUM_REDIS_GET_RETRIES"] = "1"  # the default is minutes, of a cluster that has ended, say
        os.environ.update(settings | dict(os.environ))
        ray = need("ray", "ray")
        need("ray.data", "ray")
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
            raise BatchError(f"no Ray cluster at {self._address}: {reason(error)}") from error
        return ray


def _check_reached(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        BatchError: nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise BatchError(f"no Ray cluster at {address}: {reason(error)}") from error


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Nothing on standard error, not from C++ either: there the core of Ray says how much it is going to say."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def _quieten(ray: Any) -> None:
    """No bars and no log lines of Ray's own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
