"""Tests with a real Ray cluster of two nodes on this machine, whose workers die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from batch_helpers import (
    DECODE,
    ENCODE,
    Notebook,
    finished,
    manifest,
    members,
    outputs,
    png,
    run,
    write_samples,
    write_table,
    write_tree,
)
from sprdiff.batch import cluster
from sprdiff.batch.cluster import Cluster, Starts, Worker
from sprdiff.batch.collection import Item
from sprdiff.batch.recode import Encode
from sprdiff.batch.work import Result, RunOptions
from sprdiff.errors import BatchError, WeightsError

PATIENCE = 120.0


class Here:
    """The part of Ray that the engine uses, without processes: actors are objects, and references are
    values."""

    def get(self, value: Any) -> Any:
        return value


class Actor:
    def __init__(self, held: object) -> None:
        self._held = held

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._held, name)
        return type("Method", (), {"remote": staticmethod(method)})


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cluster, "need", lambda module, extra, error: Here())
    return lambda options, starts: Worker(options, Actor(starts))


def batch_of(*items: Item) -> dict[str, list[str]]:
    return {"item": [json.dumps(asdict(item)) for item in items]}


# ---------------------------------------------------------------------------- without a cluster


def test_a_worker_gives_up_what_its_predecessors_died_of(worker: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    write_samples(tmp_path / "b.tar", 3)
    picture = Item(str(tmp_path / "a.png"), str(tmp_path / "a.sprd"))
    shard = Item(str(tmp_path / "b.tar"), str(tmp_path / "out.tar"))
    for kind, item in (("pictures", picture), ("shards", shard)):
        starts = Starts()
        for _ in range(cluster.TRIES):
            starts.begin(item.source)
        told = json.loads(worker(RunOptions(kind, ENCODE), starts)(batch_of(item))["result"][0])
        result = Result.from_json(told["result"])
        assert (json.loads(told["item"])["source"], told["fatal"], result.failed) == (item.source, "", 1)
        assert "process died" in result.rows[0].error and not Path(item.target).exists()
        assert starts.begin(item.source) == 1, "it has come to an end"


def test_networks_that_cannot_be_loaded_are_told_apart(worker: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    item = Item(str(tmp_path / "a.png"), str(tmp_path / "a.sprd"))
    made = worker(RunOptions("pictures", Encode(weights=str(tmp_path))), Starts())(batch_of(item))
    assert "manifest.json" in json.loads(made["result"][0])["fatal"]


# ---------------------------------------------------------------------------- with one


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a cluster of two nodes with one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster as Nodes

    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=small)
    nodes.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield str(nodes.address)
    ray.shutdown()
    nodes.shutdown()


class Killer(threading.Thread):
    """Waits for a condition, kills one worker of the cluster that is working, and then takes a look."""

    def __init__(self, condition: Callable[[], bool], look: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.condition, self.look = condition, look
        self.seen: Any = None
        self.start()

    def run(self) -> None:
        psutil = pytest.importorskip("psutil")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.seen is None:
            for process in psutil.process_iter(["cmdline"]) if self.condition() else ():
                title = " ".join(process.info["cmdline"] or [])
                if title.startswith("ray::MapWorker") and "submit" in title and self.seen is None:
                    process.send_signal(signal.SIGKILL)
                    self.seen = self.look()
            time.sleep(0.005)


@pytest.mark.services
@pytest.mark.filterwarnings("default")  # what Ray itself warns of is not ours
def test_a_killed_worker_costs_nothing(address: str, tmp_path: Path) -> None:
    count = 80
    tree = write_tree(tmp_path / "in", [f"{i // 10}/{i:03d}.png" for i in range(count)])
    (tree / "0" / "000.png").write_bytes(b"?")
    out, progress = tmp_path / "out", Notebook()

    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("[0-9]/*.sprd")}

    killer = Killer(lambda: len(stamps()) >= 10, stamps)
    outcome = run(tree, out, engine=Cluster(address), progress=progress)
    killer.join(PATIENCE)
    assert killer.seen, "nobody was killed"
    assert killer.seen.items() <= stamps().items(), "what was there has been made again"
    assert len(finished(out)) == count - 1 and progress.pictures == count
    assert (outcome.totals.pictures, outcome.totals.failed) == (count, 1)
    rows = manifest(out)
    assert len({row["source"] for row in rows}) == len(rows) == count
    assert set(outputs(out)) == {f"{i // 10}/{i:03d}.sprd" for i in range(1, count)}
    assert run(tree, out, engine=Cluster(address)).worked_on == 1, "the one that failed"


@pytest.mark.services
@pytest.mark.filterwarnings("default")
def test_a_killed_worker_costs_the_shard_that_it_was_at(address: str, tmp_path: Path) -> None:
    count = 240  # so many that the killer comes in time however late its thread is woken
    write_samples(tmp_path / "in" / "a.tar", count)
    write_samples(tmp_path / "in" / "b.tar", count, first=count)
    staged = tmp_path / "out" / ".sprdiff-batch" / "staged"

    def at_work() -> list[Path]:
        with suppress(FileNotFoundError):  # a folder may go away while they are listed
            return list(staged.glob("*/output"))
        return []

    killer = Killer(lambda: len(at_work()) > 0, at_work)
    outcome = run(tmp_path / "in", tmp_path / "out", engine=Cluster(address))
    killer.join(PATIENCE)
    rows = manifest(tmp_path / "out")
    assert killer.seen, "nobody was killed"
    assert len({row["source"] for row in rows}) == len(rows) == 2 * count
    assert (outcome.totals.pictures, outcome.totals.failed) == (2 * count, 0)
    for name, first in (("a.tar", 0), ("b.tar", count)):
        expected = [f"s{i:03d}.{kind}" for i in range(first, first + count) for kind in ("sprd", "txt")]
        assert [n for n, _ in members(tmp_path / "out" / name)] == expected
    assert len(finished(tmp_path / "out")) == 2 and not staged.exists()


@pytest.mark.services
@pytest.mark.filterwarnings("default")
def test_tables_and_decoding_on_a_cluster(address: str, tmp_path: Path) -> None:
    write_table(tmp_path / "in" / "a.parquet", [png(i) for i in range(5)], label=list(range(5)))
    assert run(tmp_path / "in", tmp_path / "out", engine=Cluster(address, 1)).totals.failed == 0
    assert run(tmp_path / "out", tmp_path / "back", DECODE, engine=Cluster(address, 1)).totals.pictures == 5
    broken = tmp_path / "weights"
    broken.mkdir()
    with pytest.raises(WeightsError):
        run(tmp_path / "in", tmp_path / "none", Encode(weights=str(broken)), engine=Cluster(address))


@pytest.mark.services
def test_the_command_on_a_cluster(address: str, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png", "b.png"])
    command = [
        sys.executable,
        "-m",
        "sprdiff",
        "batch",
        str(tree),
        str(tmp_path / "out"),
        "-q",
        "10",
        "--ray",
    ]
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "2 pictures" in done.stdout
    assert set(outputs(tmp_path / "out")) == {"a.sprd", "b.sprd"}


@pytest.mark.services
@pytest.mark.filterwarnings("default")
def test_other_clusters_are_one_line(address: str, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png"])
    with pytest.raises(BatchError, match=r"no Ray cluster at 127\.0\.0\.1:1: connection refused"):
        run(tree, tmp_path / "out", engine=Cluster("127.0.0.1:1"))
    assert run(tree, tmp_path / "out", engine=Cluster("auto")).totals.pictures == 1
    with socket.create_server(("127.0.0.1", 0)) as other:
        elsewhere = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BatchError, match=f"connected to the Ray cluster at {address} already"):
            run(tree, tmp_path / "more", engine=Cluster(elsewhere))
