"""Tests of collections on web servers and on S3, and of how remote files are told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch_helpers import (
    members,
    outputs,
    run,
    write_samples,
    write_tree,
)
from sprdiff.batch import storage
from sprdiff.common import remote
from sprdiff.errors import BatchError, OutputExistsError
from web_helpers import served

fsspec = pytest.importorskip("fsspec")


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
