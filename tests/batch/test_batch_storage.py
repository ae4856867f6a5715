"""Tests of collections elsewhere: in object stores, on web servers, and on file systems that fail now and
then."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch_helpers import (
    DECODE,
    engine,
    here,
    members,
    outputs,
    png,
    run,
    write_samples,
    write_table,
    write_tree,
)
from sprdiff.batch import storage
from sprdiff.batch.state import default_folder, opened
from sprdiff.common import remote
from sprdiff.errors import BatchError, ImageError, OutputError, OutputExistsError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Empty the file system in memory of fsspec; the folders of runs are in a home of their own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


def upload(files: Any, folder: Path, address: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{address}/{path.relative_to(folder)}", path.read_bytes())


# ---------------------------------------------------------------------------- object stores


def test_a_tree_in_a_store_and_back(memory: Any, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png", "deep/er/b.png", "notes.txt"])
    upload(memory, tree, "/in")
    assert run("memory://in", "memory://out").totals.failed == 0
    assert memory.cat("/out/deep/er/b.sprd").startswith(b"SPR")
    rows = pq.read_table(memory.open("/out/_manifest.parquet")).to_pylist()
    assert [row["target"] for row in rows] == ["memory://out/a.sprd", "memory://out/deep/er/b.sprd"]
    run("memory://out", tmp_path / "back", DECODE)
    assert set(outputs(tmp_path / "back")) == {"a.png", "deep/er/b.png"}
    assert run("memory://in", "memory://out/").worked_on == 0, "a second run finds the first"


def test_containers_in_a_store(memory: Any, tmp_path: Path) -> None:
    write_samples(tmp_path / "in" / "a.tar", 3)
    write_samples(tmp_path / "in" / "deep" / "b.tar", 2)
    upload(memory, tmp_path / "in", "/in")
    assert run("memory://in", "memory://out").totals.pictures == 5
    (tmp_path / "b.tar").write_bytes(memory.cat("/out/deep/b.tar"))
    assert [name for name, _ in members(tmp_path / "b.tar")] == [
        "s000.sprd",
        "s000.txt",
        "s001.sprd",
        "s001.txt",
    ]
    memory.pipe_file("/tables/t.parquet", write_table(tmp_path / "t.parquet", [png(0)]).read_bytes())
    run("memory://tables/t.parquet", "memory://out2")
    assert pq.read_table(memory.open("/out2/t.parquet")).column_names == ["sprd"]
    folder = default_folder("memory://out")
    assert folder.is_relative_to(tmp_path / "state") and {path.name for path in folder.iterdir()} == {
        "records.sqlite",
        "running.lock",
    }


def test_nothing_in_a_store_is_overwritten_without_force(memory: Any, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png", "deep/b.png"])
    memory.pipe_file("/out/deep/b.sprd", b"old")
    with pytest.raises(OutputError, match=r"memory://out/deep/b\.sprd already exists; only -f"):
        run(tree, "memory://out")
    assert memory.find("/out") == ["/out/deep/b.sprd"]

    def meddle(function: Any, tasks: Any, jobs: int) -> Any:
        memory.pipe_file("/out2/a.sprd", b"other")
        return here(function, tasks, jobs)

    outcome = run(tree, "memory://out2", engine=engine(meddle))
    assert memory.cat("/out2/a.sprd") == b"other" and "already exists" in outcome.totals.failures[0][1]
    assert (
        run(tree, "memory://out", force=True).totals.failed == 0 and memory.cat("/out/deep/b.sprd") != b"old"
    )


def test_a_finished_container_that_was_not_noted(memory: Any, tmp_path: Path) -> None:
    shard = write_samples(tmp_path / "a.tar", 2)
    for dest, held in (("memory://out", memory), (str(tmp_path / "out"), None)):
        run(shard, dest)
        forget(dest)
        assert run(shard, dest).totals.failed == 0, "the same again is the same file"
        forget(dest)
        if held is not None:
            held.pipe_file("/out/a.tar", b"other")
        else:
            (tmp_path / "out" / "a.tar").write_bytes(b"other")
        assert "already exists" in run(shard, dest).totals.failures[0][1]


def forget(dest: str) -> None:
    """Remove from the record of a run what has become of its files."""
    with closing(sqlite3.connect(default_folder(dest) / "records.sqlite")) as records, records:
        records.execute("DELETE FROM files")


def test_files_in_a_store_that_have_changed(memory: Any) -> None:
    for name in ("a", "b", "c"):
        memory.pipe_file(f"/in/{name}.png", png(ord(name)))
    run("memory://in", "memory://out")
    memory.pipe_file("/in/a.png", png(7))
    memory.pipe_file("/in/b.png", png(ord("b")))  # another time, but the same contents
    memory.pipe_file("/out/c.sprd", b"somebody else's")
    outcome = run("memory://in", "memory://out")
    assert (outcome.worked_on, outcome.totals.failed) == (2, 1) and "c.sprd already exists" in str(
        outcome.totals.failures
    )
    assert memory.cat("/out/c.sprd") == b"somebody else's"


def test_one_run_at_a_time_in_a_store(memory: Any, tmp_path: Path) -> None:
    """This holds whatever the folders of the two runs are, and however the first has ended."""
    tree = write_tree(tmp_path / "in", ["a.png"])
    lock = "/out/.sprdiff-batch/running.json"
    work = tmp_path / "work"
    with (
        opened(work, "memory://out", "the first"),
        pytest.raises(
            BatchError, match=rf"memory://out is in use by process {os.getpid()} on .*: the first; if that"
        ),
    ):
        run(tree, "memory://out")
    assert not memory.exists(lock)
    with opened(work, "memory://out", "killed"):
        left = memory.cat(lock)
    memory.pipe_file(lock, left)
    with pytest.raises(
        BatchError, match=r"killed; if that has ended, delete memory://out/\.sprdiff-batch/running\.json"
    ):
        run(tree, "memory://out")
    assert run(tree, "memory://out", folder=work).totals.failed == 0, "the run itself goes on"
    assert not memory.exists(lock)
    memory.pipe_file(lock, b"[1]")
    with pytest.raises(BatchError, match="in use by process None"):
        run(tree, "memory://out", folder=work)


def test_a_name_in_a_store_that_leads_out(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe_file("/in/a.png", png(0))

    def found(address: str) -> list[tuple[str, str, storage.Stamp]]:
        stamp = storage.Stamp(1)
        return (
            [("up.png", "file", stamp)]
            if address.endswith("..")
            else [("..", "directory", stamp), ("a.png", "file", stamp)]
        )

    monkeypatch.setattr(storage, "_entries", found)
    monkeypatch.setattr(storage, "_hidden", lambda name: False)
    outcome = run("memory://in", tmp_path / "out")
    assert outcome.totals.failures == [("memory://in/../up.png", "its name leads out of the folder")]
    assert set(outputs(tmp_path / "out")) == {"a.sprd"}


def test_other_file_systems_get_a_temporary_name_first(tmp_path: Path) -> None:
    from fsspec.implementations.local import LocalFileSystem

    seen: list[str] = []

    class Disk(LocalFileSystem):
        protocol = "disk"

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
            seen.append(os.path.basename(path))
            super().pipe_file(path, value, mode=mode, **options)

    fsspec.register_implementation("disk", Disk, clobber=True)
    address = f"disk://{tmp_path}/deep/x"

    def write(data: bytes, *, force: bool) -> None:
        remote.upload(address, lambda files, path, mode: files.pipe_file(path, data, mode=mode), force=force)

    write(b"one", force=False)
    with pytest.raises(OutputExistsError, match="already exists"):
        write(b"two", force=False)
    assert (tmp_path / "deep" / "x").read_bytes() == b"one"
    write(b"two", force=True)
    assert (tmp_path / "deep" / "x").read_bytes() == b"two"
    assert len(seen) == 2 and all(name.startswith(".sprdiff-") for name in seen)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x"]


# ---------------------------------------------------------------------------- trouble


def test_what_a_network_refuses_for_a_moment(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/x", b"data")
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    calls: list[str] = []

    def failing(times: int, error: Exception) -> Any:
        calls.clear()

        def open_(self: Any, path: str, *given: Any, **named: Any) -> Any:
            calls.append(path)
            if len(calls) <= times:
                raise error
            return original(self, path, *given, **named)

        return open_

    original = type(memory).open
    monkeypatch.setattr(type(memory), "open", failing(2, ConnectionResetError("reset")))
    assert storage.read("memory://x") == b"data" and len(calls) == 3
    monkeypatch.setattr(type(memory), "open", failing(3, ConnectionResetError("connection reset")))
    with pytest.raises(BatchError, match="memory://x cannot be reached: connection reset"):
        storage.read("memory://x")
    monkeypatch.setattr(type(memory), "open", failing(9, PermissionError("forbidden")))
    with pytest.raises(BatchError, match="forbidden"):
        storage.read("memory://x")
    assert len(calls) == 1, "no use to try again"


def test_files_that_are_too_long(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_FILE", 2**20)
    memory.pipe_file("/x", bytes(2**22))
    (tmp_path / "x").write_bytes(bytes(2**22))
    for address in ("memory://x", str(tmp_path / "x")):
        with pytest.raises(ImageError, match="longer than 1048576 bytes"):
            storage.read(address)
