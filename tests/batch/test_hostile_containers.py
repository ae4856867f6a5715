"""Tests of hostile shards and tables: each fails alone, within limits."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import attack_doors as doors
from batch_helpers import (
    DECODE,
    ENCODE,
    manifest,
    members,
    outputs,
    png,
    run,
    write_samples,
    write_table,
    write_tar,
)
from conftest import photo
from sprdiff.batch import pages, storage, work
from sprdiff.batch.names import has_controls
from sprdiff.batch.parquet import ParquetTable
from sprdiff.batch.shards import TarShard
from sprdiff.common import tar
from sprdiff.format.container import Header, pack_file


def attack(name: str) -> bytes:
    return (doors.ATTACKS / name).read_bytes()


def test_an_odd_table_fails_alone_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in doors.corpus("parquet"):
        if path.stem in ("doubled", "nested", "zstd", "list"):
            (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    write_table(tmp_path / "in" / "good.parquet", [png(0)])
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {"good.parquet"}
    assert (outcome.totals.pictures, outcome.totals.failed) == (5, 4)


@pytest.mark.parametrize("where", ["pictures", "write"])
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_what_nobody_foresaw_is_one_containers_failure(
    kind: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        if kind == "tar":
            write_samples(tmp_path / "in" / f"{name}.tar", 1)
        else:
            write_table(tmp_path / "in" / f"{name}.parquet", [png(0)])
    owner: Any = TarShard if kind == "tar" else ParquetTable
    sound = getattr(owner, where)

    def odd(self: Any, *given: Any) -> Any:
        if self.path.name.startswith("a."):
            raise KeyError("nobody\nforesaw this")
        return sound(self, *given)

    monkeypatch.setattr(owner, where, odd)
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {f"b.{kind}"}
    assert [error for _, error in outcome.totals.failures] == ["unexpected KeyError: 'nobody\\nforesaw this'"]


def test_what_nobody_foresaw_is_one_pictures_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes(png(ord(name)))
    sound = storage.read

    def odd(address: str, bound: Callable[[bytes], int]) -> bytes:
        if address.endswith("a.png"):
            raise ZeroDivisionError
        return sound(address, bound)

    monkeypatch.setattr(work, "read", odd)
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert "unexpected ZeroDivisionError" in outcome.totals.failures[0][1] and outcome.totals.failed == 1
    assert set(outputs(tmp_path / "out")) == {"b.sprd"}


def test_rights_and_names_of_members_do_no_harm(tmp_path: Path) -> None:
    odd = tarfile.TarInfo("late.txt")
    odd.mode, odd.mtime = 0o6777, -5
    write_tar(
        tmp_path / "in" / "a.tar",
        [odd, ("x.png", png(0)), ("x\x1b[2J.txt", b"a"), ("y" * 2000 + ".txt", b"b"), ("ok é.txt", b"c")],
    )
    run(tmp_path / "in", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "a.tar") as made:
        assert {(m.name, m.mode) for m in made} == {
            ("late.txt", 0o644),
            ("x.sprd", 0o644),
            ("ok é.txt", 0o644),
        }
        assert min(m.mtime for m in made) >= 0
    errors = [row["error"] for row in manifest(tmp_path / "out") if row["error"]]
    assert errors == ["its name holds control characters", "its name is longer than 1024 characters"]
    assert max(len(row["source"]) for row in manifest(tmp_path / "out")) < 1024 + len(str(tmp_path)) + 20


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("a.jpg", False),
        ("ü 名.jpg", False),
        ("a\n", True),
        ("\x9bm", True),
        ("a\u202egpj.exe", True),
        ("a\u2028b", True),
    ],
)
def test_control_characters(name: str, odd: bool) -> None:
    assert has_controls(name) is odd


def test_members_and_names_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{n}.txt", b"") for n in range(10)])
    for name, value in (("MAX_MEMBERS", 9), ("MAX_NAMES", 40)):
        with monkeypatch.context() as patch:
            patch.setattr(tar, name, value)
            with pytest.raises(Exception, match="more than"):
                TarShard(path, ENCODE)
    assert TarShard(path, ENCODE).count == 0


def test_a_member_is_read_as_far_as_its_beginning_allows(tmp_path: Path) -> None:
    sound = doors.codec().encode(photo(40, 40), quality=20)
    long = pack_file(Header(1, 1, 0, 0, False, 1, b"ab"), bytes(20_000), b"ab" * 16)
    write_tar(tmp_path / "a.tar", [("long.sprd", long), ("no.sprd", b"no file"), ("good.sprd", sound)])
    run(tmp_path / "a.tar", tmp_path / "out", DECODE)
    assert [name for name, _ in members(tmp_path / "out" / "a.tar")] == ["good.png"]
    errors = [row["error"] for row in manifest(tmp_path / "out")]
    assert errors[0] == "it is longer than a file that begins like this can be" and "letters SPR" in errors[1]


def test_rows_of_tables_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprdiff.batch.pages.MAX_ROWS", 3)
    path = write_table(tmp_path / "a.parquet", [b"x"] * 4)
    with pytest.raises(Exception, match="has 4 rows, above the limit of 3"):
        ParquetTable(path, ENCODE)


@pytest.mark.parametrize(
    "header",
    [
        b"\x15\0\x15\2\x15\2\x25\2\0",  # a number where there should be a structure (found by the fuzzer)
        b"\x15\0\x15\2\x15\2\0",
        b"\x15\0\x15\1\x15\2\x2c\x15\2\x15\0\0\0",
        b"\x15\0\x18\x02ab\x15\2\0",
        b"\x2c" * 30,
        b"\x19\xff\xff\xff\xff\x7f",
        b"",
    ],
)
def test_page_headers_that_are_none(header: bytes) -> None:
    about: Any = SimpleNamespace(data_page_offset=0, has_dictionary_page=False, total_compressed_size=100)
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        list(pages._pages(io.BytesIO(header), about))


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_sound_tables_are_read_however_they_are_packed(codec: str, version: str, tmp_path: Path) -> None:
    pictures = [os.urandom(3000) for _ in range(40)]
    for options in ({}, {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}}):
        columns = {"image": pictures, "tags": [["a", "b"]] * 40, "s": [{"x": 1, "y": ["q"]}] * 40}
        pq.write_table(
            pa.table(columns), tmp_path / "a.parquet", compression=codec, data_page_version=version, **options
        )
        made = ParquetTable(tmp_path / "a.parquet", ENCODE)
        read = [data for _, _, data in made.pictures()]
        assert read == pictures and made._together == 16
