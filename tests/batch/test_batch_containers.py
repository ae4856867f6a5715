"""Tests of shards and tables: pictures are replaced, everything else is copied, and hostile ones do no
harm."""

from __future__ import annotations

import io
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from batch_helpers import (
    DECODE,
    ENCODE,
    Notebook,
    engine,
    manifest,
    members,
    outputs,
    png,
    run,
    write_samples,
    write_table,
    write_tar,
)
from source_helpers import COMPOSITE, source_type
from sprdiff.batch import parquet, shards
from sprdiff.batch.parquet import ParquetTable
from sprdiff.batch.recode import Decode
from sprdiff.codec import Codec
from sprdiff.errors import BatchError


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(threads=1)


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


# ---------------------------------------------------------------------------- shards


def test_shards_become_shards(tmp_path: Path, codec: Codec) -> None:
    write_samples(tmp_path / "in" / "a-000.tar", 3)
    write_samples(tmp_path / "in" / "deep" / "a-001.tar", 2, first=3)
    progress = Notebook()
    outcome = run(tmp_path / "in", tmp_path / "out", progress=progress)
    assert set(outputs(tmp_path / "out")) == {"a-000.tar", "deep/a-001.tar"}
    found = members(tmp_path / "out" / "a-000.tar")
    assert [name for name, _ in found] == [f"s{i:03d}.{kind}" for i in range(3) for kind in ("sprd", "txt")]
    assert found[2] == ("s001.sprd", codec.encode(png(1), quality=10)) and found[3][1] == b"caption 1"
    assert (outcome.totals.pictures, progress.pictures, progress.held, progress.files) == (5, 5, 5, [2])
    first = tmp_path / "in" / "a-000.tar"
    assert manifest(tmp_path / "out")[1]["source"] == f"{first}:s001.png"
    assert manifest(tmp_path / "out")[1]["target"] == f"{tmp_path / 'out' / 'a-000.tar'}:s001.sprd"


def test_webdataset_reads_them(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.tar", 3)
    run(tmp_path / "a.tar", tmp_path / "out")
    run(tmp_path / "out", tmp_path / "back", DECODE)
    samples = _samples(tmp_path / "out" / "a.tar")
    assert [(s["__key__"], s["txt"]) for s in samples] == [(f"s{i:03d}", b"caption %d" % i) for i in range(3)]
    back = _samples(tmp_path / "back" / "a.tar")
    assert [Image.open(io.BytesIO(s["png"])).size for s in back] == [(40, 40)] * 3
    assert [source_type(s["png"]) for s in back] == [COMPOSITE] * 3


def _samples(path: Path) -> list[dict[str, Any]]:
    """Read samples with webdataset, from a file that is closed afterwards."""
    with open(path, "rb") as file:
        readers = pytest.importorskip("webdataset.tariterators")
        return list(readers.group_by_keys(readers.tar_file_expander([{"url": str(path), "stream": file}])))


def test_the_same_shard_gives_the_same_bytes(tmp_path: Path) -> None:
    write_samples(tmp_path / "a.tar", 2)
    for out in ("one", "two"):
        run(tmp_path / "a.tar", tmp_path / out)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    with tarfile.open(tmp_path / "one" / "a.tar") as tar:
        assert {(m.mtime, m.uid, m.uname) for m in tar} == {(7, 0, "")}


def test_a_range_of_shards(tmp_path: Path) -> None:
    for number in (0, 1):
        write_samples(tmp_path / "in" / f"{number}" / "x.tar", 1)
    run(f"{tmp_path}/in/{{0..1}}/x.tar", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {"0/x.tar", "1/x.tar"}


def test_names_in_a_shard_stay_apart(tmp_path: Path) -> None:
    pictures = [(name, png(i)) for i, name in enumerate(("x.png", "x.jpg", "y.png", "z.png", "z.png"))]
    write_tar(tmp_path / "a.tar", [*pictures[:3], ("y.sprd", b"own"), *pictures[3:]])
    run(tmp_path / "a.tar", tmp_path / "out")
    found = [name for name, _ in members(tmp_path / "out" / "a.tar")]
    assert found == ["x.png.sprd", "x.jpg.sprd", "y.png.sprd", "y.sprd", "z.sprd", "z.sprd"]


def test_hostile_members_are_failures_and_get_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_FILE", 50_000)
    deep = tarfile.TarInfo("folder")
    deep.type = tarfile.DIRTYPE
    write_tar(
        tmp_path / "a.tar",
        [
            ("../up.png", png(0)),
            ("/etc/absolute.txt", b"text"),
            ("c:\\windows.png", png(0)),
            link("symbolic.png", tarfile.SYMTYPE),
            link("hard.txt", tarfile.LNKTYPE),
            link("device", tarfile.CHRTYPE),
            link("pipe.png", tarfile.FIFOTYPE),
            deep,
            ("huge.png", bytes(60_000)),
            ("huge.mp4", bytes(60_000)),
            ("no.png", b"no picture"),
            ("good.png", png(1)),
        ],
    )
    outcome = run(tmp_path / "a.tar", tmp_path / "out")
    assert [name for name, _ in members(tmp_path / "out" / "a.tar")] == ["huge.mp4", "good.sprd"]
    errors = {row["source"].rpartition(":")[2]: row["error"] for row in manifest(tmp_path / "out")}
    assert outcome.totals.failed == 9 and errors.pop("good.png") == ""
    assert errors["../up.png"] == errors["/etc/absolute.txt"] == "its name leads out of the shard"
    assert errors["symbolic.png"] == errors["hard.txt"] == "it is a link or a special file, not a picture"
    assert errors["huge.png"] == "it is longer than 50000 bytes"


def test_a_sparse_member_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("sparse.png")
    header.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "sparse.png",
        "GNU.sparse.realsize": "1000000000000",
    }
    body = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    header.size = len(body)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(header, io.BytesIO(body))
    run(tmp_path / "a.tar", tmp_path / "out")
    assert [row["error"] for row in manifest(tmp_path / "out")] == ["it is a sparse file, which is not read"]


def test_damaged_shards_fail_as_a_whole(tmp_path: Path) -> None:
    whole = write_samples(tmp_path / "whole.tar", 3).read_bytes()
    second = whole.index(b"s001.png")
    negative = bytearray(whole)
    negative[second + 124 : second + 136] = b"\xff" * 12  # a size of -1, in base 256
    header = tarfile.TarInfo.frombuf(whole[second : second + 512], "utf-8", "strict")
    negative[second + 148 : second + 156] = b"%06o\0 " % _checksum(bytes(negative[second : second + 512]))
    assert header.size > 0
    bad = {
        "text": b"no shard" * 100,
        "empty": b"",
        "cut": whole[: second + 600],
        "open end": whole[: len(whole) // 10240 * 10240 - 10240 + 512 * 3],
        "garbage": whole[:second] + b"x" * 512 + whole[second + 512 :],
        "negative": bytes(negative),
    }
    (tmp_path / "in").mkdir()
    for name, data in bad.items():
        (tmp_path / "in" / f"{name}.tar").write_bytes(data)
    write_samples(tmp_path / "in" / "good.tar", 1)
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {"good.tar"}
    assert outcome.totals.failed == len(bad) and all(
        "no readable tar" in why for _, why in outcome.totals.failures
    )


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + sum(header[156:]) + 8 * 32


def test_a_shard_without_pictures(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [("x.txt", b"text")])
    write_tar(tmp_path / "in" / "b.tar", [])
    assert run(tmp_path / "in", tmp_path / "out").totals.pictures == 0
    assert members(tmp_path / "out" / "a.tar") == [("x.txt", b"text")]
    assert members(tmp_path / "out" / "b.tar") == []


def shuffled(function: Any, tasks: Any, jobs: int) -> Any:
    """Apply a function to tasks in this process; the results come in groups, each in reverse order."""
    left = iter(tasks)
    while some := list(islice(left, jobs)):
        yield from ((task, function(task)) for task in reversed(some))


def test_pictures_of_a_shard_keep_their_order(tmp_path: Path, codec: Codec) -> None:
    """The order does not depend on which process ends first."""
    write_samples(tmp_path / "in" / "a.tar", 7)
    write_samples(tmp_path / "in" / "b.tar", 2, first=7)
    assert run(tmp_path / "in", tmp_path / "out", engine=engine(shuffled, 3)).totals.pictures == 9
    made = [data for name, data in members(tmp_path / "out" / "a.tar") if name.endswith(".sprd")]
    assert made == [codec.encode(png(seed), quality=10) for seed in range(7)]
    assert [Path(row["source"]).name for row in manifest(tmp_path / "out")][6:8] == [
        "a.tar:s006.png",
        "b.tar:s007.png",
    ]
    assert not (tmp_path / "out" / ".sprdiff-batch" / "staged").exists()


def test_two_shards_of_a_list_with_one_name(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("/a/x.tar\n/a/./x.tar\n")
    with pytest.raises(BatchError, match="would become the same output"):
        run(listed, tmp_path / "out")


# ---------------------------------------------------------------------------- tables


def test_a_table_becomes_a_table(tmp_path: Path, codec: Codec) -> None:
    pictures = [png(i) for i in range(5)]
    write_table(tmp_path / "in" / "a.parquet", pictures, group=3, label=list(range(5)), name=list("abcde"))
    outcome = run(tmp_path / "in", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "a.parquet")
    assert table.column_names == ["sprd", "label", "name"]
    assert table["sprd"].to_pylist() == [codec.encode(picture, quality=10) for picture in pictures]
    assert (table["label"].to_pylist(), table["name"].to_pylist()) == (list(range(5)), list("abcde"))
    assert pq.ParquetFile(tmp_path / "out" / "a.parquet").num_row_groups == 2
    assert manifest(tmp_path / "out")[4]["source"] == f"{tmp_path / 'in' / 'a.parquet'}:4"
    assert outcome.totals.pictures == 5 and pq.read_table(tmp_path / "out").num_rows == 5, (
        "the manifest is passed over"
    )
    for kind, realism, wanted in (("png", None, COMPOSITE), ("webp", 0.5, COMPOSITE), ("jpg", 0, None)):
        run(tmp_path / "out", tmp_path / kind, Decode(to=kind, realism=realism))
        back = pq.read_table(tmp_path / kind / "a.parquet")
        assert back.column_names == ["image", "label", "name"]
        assert Image.open(io.BytesIO(back["image"][4].as_py())).size == (40, 40)
        assert source_type(back["image"][4].as_py()) == wanted


def test_pictures_with_a_path_beside_them(tmp_path: Path) -> None:
    """Data sets of the Hugging Face hub have such columns."""
    held = [{"bytes": png(0), "path": "a.png"}, None, {"bytes": None, "path": "b.png"}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"photo": pa.array(held, kind), "label": [1, 2, 3]})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": "{}", "mine": "kept"}), tmp_path / "a.parquet"
    )
    outcome = run(tmp_path / "a.parquet", tmp_path / "out")
    made = pq.read_table(tmp_path / "out" / "a.parquet")
    assert [data is None for data in made["sprd"].to_pylist()] == [False, True, True]
    assert made.schema.metadata == {b"mine": b"kept"} and outcome.totals.failed == 2
    assert [row["error"] for row in manifest(tmp_path / "out")] == [
        "",
        "the row is null, not a picture",
        "the row is null, not a picture",
    ]


def test_columns_are_named_or_found(tmp_path: Path) -> None:
    def table(**columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    run(table(anything=pa.array([png(0)], pa.large_binary()), x=[1]), tmp_path / "one", output_column="small")
    assert pq.read_schema(tmp_path / "one" / "a.parquet").names == ["small", "x"]
    two = table(left=[png(0)], right=[png(1)], text=["x"], sprd=[1])
    run(two, tmp_path / "two", column="right", output_column="made")
    assert pq.read_schema(tmp_path / "two" / "a.parquet").names == ["left", "made", "text", "sprd"]
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "say with --column which column holds the pictures; it has left, right, text, sprd"),
        ({"column": "middle"}, "the column middle is not there"),
        ({"column": "text"}, "the column text does not hold bytes"),
        ({"column": "left"}, "has a column sprd already: name another with --output-column"),
    )
    for options, words in wrong:
        outcome = run(two, tmp_path / words[:20], **options)
        assert words in outcome.totals.failures[0][1] and outputs(tmp_path / words[:20]) == {}


def test_damaged_tables_fail_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    whole = write_table(tmp_path / "in" / "good.parquet", [png(0)] * 3).read_bytes()
    (tmp_path / "in" / "cut.parquet").write_bytes(whole[:-9])
    (tmp_path / "in" / "empty.parquet").touch()
    (tmp_path / "in" / "broken.parquet").write_bytes(whole[:8] + bytes(100) + whole[108:])
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {"good.parquet"} and outcome.totals.failed == 3
    assert any("is damaged" in why for _, why in outcome.totals.failures)


def test_empty_tables_and_failing_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "in" / "empty.parquet", [])
    write_table(tmp_path / "in" / "a.parquet", [b"?", png(0)])
    assert run(tmp_path / "in", tmp_path / "out").totals.failed == 1
    assert pq.read_table(tmp_path / "out" / "empty.parquet").num_rows == 0
    assert [data is None for data in pq.read_table(tmp_path / "out" / "a.parquet")["sprd"].to_pylist()] == [
        True,
        False,
    ]


def test_rows_are_read_and_written_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_FLUSH", 0)
    pictures = [b"%d" % i for i in range(100)]
    for others in ({"label": range(100)}, {}):
        path = write_table(tmp_path / "a.parquet", pictures, group=70, **others)
        table = ParquetTable(path, ENCODE)
        read = list(table.pictures())
        assert [data for _, _, data in read] == pictures and table.count == 100
        assert read[19] == (":19", ":19", b"19")
        table.write(iter(pictures), tmp_path / "b.parquet")
        wanted = {"sprd": pictures, **{name: list(values) for name, values in others.items()}}
        assert pq.read_table(tmp_path / "b.parquet").to_pydict() == wanted
