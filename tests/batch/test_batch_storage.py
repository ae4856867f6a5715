"""Tests of collections elsewhere: in object stores, on web servers, and on file systems that fail now and
then."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
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
from web_helpers import served

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


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serve a folder from a server of this machine."""
    folder = write_tree(tmp_path / "web", ["a.png", "deep/b.png"])
    write_samples(folder / "x-0.tar", 2)
    write_samples(folder / "x-1.tar", 1, first=2)
    with served(folder) as address:
        yield address


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
        "records.sqlite", "running.lock"
    }  # fmt: skip


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


# ---------------------------------------------------------------------------- web servers


def test_pictures_and_shards_from_a_web_server(web: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{web}/a.png\n{web}/deep/b.png\n{web}/none.png\n")
    outcome = run(listed, tmp_path / "out")
    host = web.removeprefix("http://").replace(":", "_")
    assert set(outputs(tmp_path / "out")) == {f"{host}/a.sprd", f"{host}/deep/b.sprd"}
    assert outcome.totals.failures[0][0] == f"{web}/none.png" and outcome.totals.failed == 1
    assert run(listed, tmp_path / "out").worked_on == 1, "only the one that failed is fetched again"
    run(web + "/x-{0..1}.tar", tmp_path / "shards")
    assert [len(members(tmp_path / "shards" / f"x-{i}.tar")) for i in range(2)] == [4, 2]
    outcome = run(web + "/x-{0..2}.tar", tmp_path / "more")
    assert set(outputs(tmp_path / "more")) == {"x-0.tar", "x-1.tar"} and outcome.totals.failed == 1
    for source, dest, words in ((web, tmp_path / "x", "list no folders"), (tmp_path, web, "take no files")):
        with pytest.raises(BatchError, match=words):
            run(source, dest)


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


def test_addresses(tmp_path: Path) -> None:
    assert (
        remote.is_remote("s3://a/b")
        and remote.is_remote("simplecache::s3://a/b")
        and remote.is_remote("gs://a")
    )
    assert not any(map(remote.is_remote, ["a/b", "/a", "C:/a", "C:\\a", "file:///a", "a:b"]))
    assert remote.join("s3://a/", "b/c") == "s3://a/b/c" and remote.join("/a", "b/c") == os.path.join(
        "/a", "b", "c"
    )
    assert remote.absolute("s3://a/b/") == "s3://a/b" and remote.absolute("x") == os.path.abspath("x")
    assert storage.stat(str(tmp_path / "none")) is None and storage.stat("memory://none") is None
    with pytest.raises(BatchError, match="no regular file"):
        storage.read(os.devnull)
    with pytest.raises(BatchError, match="cannot be read"):
        storage.read("a\0b")


def test_files_without_size_or_time_are_told_by_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"data")
    sha256 = storage.digest(str(path))
    for before, now in (
        (storage.Stamp(4, "1", sha256), storage.Stamp(4, "2")),
        (storage.Stamp(None, "", sha256), storage.Stamp(4, "2")),
        (storage.Stamp(4, "", sha256), storage.Stamp()),
    ):
        assert storage.unchanged(str(path), before, now)
        assert not storage.unchanged(str(path), replace(before, sha256="other"), now)
    assert storage.unchanged(str(path), storage.Stamp(4, "1", "not looked at"), storage.Stamp(4, "1"))
    assert not storage.unchanged(str(path), storage.Stamp(5, "1", sha256), storage.Stamp(4, "1"))
    assert not storage.unchanged(str(path), storage.Stamp(4, "1", sha256), None)


# ---------------------------------------------------------------------------- S3


@pytest.mark.services
def test_s3_in_processes_of_their_own(tmp_path: Path) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        s3 = fsspec.filesystem("s3", key="test", secret="test", endpoint_url=endpoint)
        s3.mkdir("bucket")
        upload(s3, write_tree(tmp_path / "in", [f"{i % 3}/{i}.png" for i in range(9)]), "bucket/in")
        upload(s3, write_samples(tmp_path / "tars" / "a.tar", 20).parent, "bucket/tars")
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "FSSPEC_S3": json.dumps({"endpoint_url": endpoint}),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }

        def command(*given: object) -> subprocess.CompletedProcess[str]:
            words = [sys.executable, "-m", "sprdiff", "batch", *map(str, given)]
            return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

        done = command("s3://bucket/in", "s3://bucket/out", "-q", "10", "-j", "2")
        assert (done.returncode, done.stderr) == (0, "") and "9 pictures" in done.stdout
        assert len(s3.glob("bucket/out/*/*.sprd")) == 9
        done = command("s3://bucket/in", "s3://bucket/out", "-q", "10")
        assert "9 pictures" in done.stdout and "0 now" in done.stdout
        done = command("s3://bucket/tars/a.tar", "s3://bucket/shards", "-q", "10", "-j", "2")
        assert done.returncode == 0 and "20 pictures" in done.stdout
        s3.get("bucket/shards/a.tar", str(tmp_path / "a.tar"))
        assert len(members(tmp_path / "a.tar")) == 40
        s3.pipe_file("bucket/again/0/0.sprd", b"old")
        done = command("s3://bucket/in", "s3://bucket/again", "-q", "10")
        assert done.returncode == 1 and "already exists; only -f" in done.stderr
        done = command("s3://nothing/in", "s3://bucket/x", "-q", "10")
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "s3://nothing/in" in done.stderr
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "test")
            patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
            (tmp_path / "new").write_bytes(b"new")
            with pytest.raises(OutputExistsError, match="already exists"):
                storage.place(tmp_path / "new", "s3://bucket/again/0/0.sprd", force=False)
        assert s3.cat("bucket/again/0/0.sprd") == b"old"
        assert manifest_of(s3) == 9
    finally:
        server.stop()


def manifest_of(s3: Any) -> int:
    """Return how many rows the first manifest has."""
    with s3.open("bucket/out/_manifest.parquet") as file:
        return len(pq.read_table(file))
