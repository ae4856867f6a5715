"""Tests of trees and lists: what becomes of each file, what is refused, and what a second run does."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from batch_helpers import (
    DECODE,
    Notebook,
    engine,
    finished,
    here,
    manifest,
    outputs,
    png,
    run,
    write_tree,
)
from conftest import photo
from source_helpers import COMPOSITE, source_type
from sprdiff.batch.recode import Decode, Encode
from sprdiff.batch.state import opened
from sprdiff.codec import Codec
from sprdiff.errors import BatchError, OutputError, WeightsError
from sprdiff.fileinfo import model_info


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "in", ["a.png", "b.PNG", "deep/er/c.png", "notes.txt", "deep/x"])


# ---------------------------------------------------------------------------- what comes out


def test_a_tree_becomes_a_tree(tree: Path, tmp_path: Path) -> None:
    progress = Notebook()
    outcome = run(tree, tmp_path / "out", progress=progress)
    made = outputs(tmp_path / "out")
    assert set(made) == {"a.sprd", "b.sprd", "deep/er/c.sprd"}
    assert made["b.sprd"] == Codec(threads=1).encode(png(1), quality=10)
    assert (outcome.totals.pictures, outcome.totals.failed, outcome.worked_on) == (3, 0, 3)
    assert progress.notes == ["passed over: 1 .txt, 1 without extension"]
    assert (progress.files, progress.pictures, progress.failed) == ([3], 3, 0)


def test_the_manifest(tree: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (30, 20), (9, 9, 9, 9)).save(tree / "clear.png")
    outcome = run(tree, tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert [row["source"] for row in rows] == [
        str(tree / n) for n in ("a.png", "b.PNG", "clear.png", "deep/er/c.png")
    ]
    row = rows[0]
    size = (tmp_path / "out" / "a.sprd").stat().st_size
    assert (row["target"], row["source_bytes"]) == (
        str(tmp_path / "out" / "a.sprd"),
        (tree / "a.png").stat().st_size,
    )
    assert (row["bytes"], row["width"], row["height"], row["error"]) == (size, 40, 40, "")
    assert row["bpp"] == pytest.approx(8 * size / 1600) and row["seconds"] > 0
    assert [row["dropped"] for row in rows] == ["", "", "alpha", ""] and outcome.totals.dropped == 1
    assert outcome.totals.bytes == sum(row["bytes"] for row in rows)


def test_decoding_is_the_reverse(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path / "out")
    outcome = run(tmp_path / "out", tmp_path / "back", DECODE)
    back = outputs(tmp_path / "back")
    assert set(back) == {"a.png", "b.png", "deep/er/c.png"} and outcome.totals.failed == 0
    data = (tmp_path / "out" / "a.sprd").read_bytes()
    with Image.open(io.BytesIO(back["a.png"])) as image:
        assert image.tobytes() == Codec(threads=1).decode(data).tobytes()
        about = json.loads(image.info["sprdiff"])
        assert (about["bytes"], about["decoder"]) == (len(data), model_info().decoder_hash)
    run(tmp_path / "out", tmp_path / "jpg", Decode(to="jpg", realism=0.0))
    coarse = outputs(tmp_path / "jpg")
    assert set(coarse) == {"a.jpg", "b.jpg", "deep/er/c.jpg"}
    assert {source_type(data) for data in back.values()} == {COMPOSITE}
    assert {source_type(data) for data in coarse.values()} == {None}


def test_a_list(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"a.png\r\n\n./deep/../b.PNG\na.png\n" + os.fsencode(tree / "deep/er/c.png") + b"\nmissing.png\n"
    )
    progress = Notebook()
    outcome = run(listed, tmp_path / "out", progress=progress)
    absolute = str(tree).lstrip("/")
    assert set(outputs(tmp_path / "out")) == {"a.sprd", "deep/b.sprd", f"{absolute}/deep/er/c.sprd"}
    assert progress.notes == ["passed over: 1 named twice"]
    assert [source for source, _ in outcome.totals.failures] == [str(tree / "missing.png")]
    listed.write_text("a.png\n./a.png\n")
    with pytest.raises(BatchError, match=r"a\.png and \./a\.png would become the same output"):
        run(listed, tmp_path / "twice")


def test_a_list_on_standard_input(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.png\nb.PNG")))
    run("-", tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {"a.sprd", "b.sprd"}


def test_outputs_of_the_same_name_keep_their_extension(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["x.jpg", "x.png", "y.png", "deep/x.png"])
    run(tree, tmp_path / "out")
    assert set(outputs(tmp_path / "out")) == {"x.jpg.sprd", "x.png.sprd", "y.sprd", "deep/x.sprd"}


def test_names_that_are_hidden_or_no_files(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", ["a.png", ".hidden.png", ".git/b.png", "real/c.png"])
    (tree / "linked").symlink_to(tree / "real")
    (tree / "d.png").symlink_to(tree / "a.png")
    (tree / "e.png").symlink_to(tree / "nothing")
    os.mkfifo(tree / "f.png")
    progress = Notebook()
    run(tree, tmp_path / "out", progress=progress)
    assert set(outputs(tmp_path / "out")) == {"a.sprd", "d.sprd", "real/c.sprd"}
    (note,) = progress.notes
    assert {"2 hidden", "1 link to a folder", "1 broken link", "1 special file"} == set(note[13:].split(", "))


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    tree = tmp_path / "in"
    tree.mkdir()
    (tree / os.fsdecode(b"\xff\n.png")).write_bytes(png(0))
    run(tree, tmp_path / "out")
    assert (tmp_path / "out" / os.fsdecode(b"\xff\n.sprd")).exists()
    assert manifest(tmp_path / "out")[0]["source"].endswith("\\udcff\n.png")


def test_the_destination_may_lie_in_the_source_or_be_it(tree: Path) -> None:
    run(tree, tree / "out")
    run(tree, tree / "out")
    assert set(outputs(tree / "out")) == {"a.sprd", "b.sprd", "deep/er/c.sprd"}
    run(tree, tree)
    assert {"a.png", "a.sprd"} <= set(outputs(tree))
    assert len(manifest(tree)) == 3


# ---------------------------------------------------------------------------- failures


def test_failures_are_rows_and_the_rest_goes_on(tree: Path, tmp_path: Path) -> None:
    (tree / "broken.png").write_bytes(png(0)[:200])
    (tree / "empty.jpg").touch()
    work = Encode(quality=10, max_pixels=1600)
    Image.fromarray(photo(41, 40)).save(tree / "large.png")
    outcome = run(tree, tmp_path / "out", work)
    errors = {Path(row["source"]).name: row["error"] for row in manifest(tmp_path / "out") if row["error"]}
    assert set(errors) == {"broken.png", "empty.jpg", "large.png"} and "truncated" in errors["broken.png"]
    assert "empty" in errors["empty.jpg"] and "above the limit" in errors["large.png"]
    assert outcome.totals.failed == 3 and len(outputs(tmp_path / "out")) == 3


def test_a_target_that_cannot_be_reached_names_the_smallest(tree: Path, tmp_path: Path) -> None:
    assert run(tree, tmp_path / "out", Encode(max_bytes=3)).totals.failed == 3
    assert "smallest" in manifest(tmp_path / "out")[0]["error"] and outputs(tmp_path / "out") == {}
    assert run(tree, tmp_path / "default", Encode()).totals.failed == 0, (
        "no target stated: the smallest there is"
    )


def test_what_failed_is_tried_again(tree: Path, tmp_path: Path) -> None:
    whole = (tree / "a.png").read_bytes()
    (tree / "a.png").write_bytes(bytes(len(whole)))
    assert run(tree, tmp_path / "out").totals.failed == 1
    (tree / "a.png").write_bytes(whole)
    outcome = run(tree, tmp_path / "out")
    assert (outcome.totals.failed, outcome.totals.pictures, outcome.worked_on) == (0, 3, 1)
    assert finished(tmp_path / "out") == [str(tree / name) for name in ("a.png", "b.PNG", "deep/er/c.png")]
    assert run(tree, tmp_path / "out").worked_on == 0


def test_a_bug_is_a_row_too(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(Encode, "make", fail)
    run(tree, tmp_path / "out")
    assert {row["error"] for row in manifest(tmp_path / "out")} == {"unexpected ZeroDivisionError: two lines"}


def test_networks_that_cannot_be_loaded_end_the_run(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        run(tree, tmp_path / "out", Encode(weights=str(tmp_path)))
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- refusals


def test_sources_that_cannot_be(tmp_path: Path) -> None:
    text = write_tree(tmp_path / "text", ["a.md", "b.md"])
    mixed = write_tree(tmp_path / "mixed", ["a.png", "b.tar", "c.png"])
    listed = tmp_path / "empty.txt"
    listed.write_text("\n\n")
    for source, words in (
        (text, r"holds nothing to encode \(2 \.md\)"),
        (mixed, "holds 2 pictures, 1 shards: say which with --as"),
        (listed, "names nothing to encode"),
        (tmp_path / "none", "no such folder or file"),
        (tmp_path / "none.txt", "no such file"),
        (write_tree(tmp_path, ["photo.png"]) / "photo.png", "neither a folder"),
        (tmp_path / "a.tar.gz", "decompress"),
        ("{0..9999999}.tar", "more than 1000000 names"),
        ("nothing://x/y", "cannot be reached: Protocol not known"),
    ):
        with pytest.raises(BatchError, match=words):
            run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(mixed, tmp_path / "out", kind="pictures")
    assert set(outputs(tmp_path / "out")) == {"a.sprd", "c.sprd"}


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "er":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("sprdiff.batch.storage.os.scandir", refuse)
    with pytest.raises(BatchError, match="deep/er cannot be read: permission denied"):
        run(tree, tmp_path / "out")


def test_nothing_is_overwritten_without_force(tree: Path, tmp_path: Path) -> None:
    old = write_tree(tmp_path / "out", ["a.sprd", "deep/er/c.sprd"])
    with pytest.raises(OutputError, match=r"a\.sprd, .*c\.sprd already exist; only -f"):
        run(tree, old)
    assert (
        outputs(old) == {"a.sprd": b"text", "deep/er/c.sprd": b"text"}
        and not (old / ".sprdiff-batch").exists()
    )
    assert run(tree, old, force=True).totals.failed == 0
    assert all(data.startswith(b"SPR") for data in outputs(old).values())
    shutil.rmtree(old / ".sprdiff-batch")
    with pytest.raises(OutputError, match=r"_manifest\.parquet already exists, of a run that cannot go on"):
        run(write_tree(tmp_path / "other", ["x.png"]), old)


def test_what_appears_while_a_run_is_at_work_is_not_overwritten(tree: Path, tmp_path: Path) -> None:
    def meddle(function: object, tasks: object, jobs: int) -> object:
        for path, text in ((tmp_path / "out" / "a.sprd", b"other"), (tmp_path / "out" / "b.sprd", b"")):
            path.write_bytes(text)
        return here(function, tasks, jobs)  # type: ignore[arg-type]

    outcome = run(tree, tmp_path / "out", engine=engine(meddle))
    assert (tmp_path / "out" / "a.sprd").read_bytes() == b"other" and outcome.totals.failed == 2
    assert "already exists" in outcome.totals.failures[0][1]


def test_a_second_run_must_be_told_the_same(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tree / "x.sprd").write_bytes(b"")
    run(tree, out, command="the first")
    before = outputs(out)
    with pytest.raises(BatchError, match=r"of a run with quality 10, now 20: use another destination"):
        run(tree, out, Encode(quality=20))
    with pytest.raises(BatchError, match="with direction encode, now decode"):
        run(tree, out, DECODE)
    with pytest.raises(BatchError, match=r"with source .*in, now .*other"):
        run(write_tree(tmp_path / "other", ["a.png"]), out)
    assert outputs(out) == before
    outcome = run(tree, out, Encode(quality=20), force=True)
    assert outcome.worked_on == 3 and outputs(out)["a.sprd"] == Codec(threads=1).encode(png(0), quality=20)
    assert run(tree, out, Encode(quality=20)).worked_on == 0, "the settings of the last run count"


def test_a_source_that_has_changed(tree: Path, tmp_path: Path) -> None:
    out, codec = tmp_path / "out", Codec(threads=1)
    run(tree, out)
    before = {path: (out / path).stat().st_mtime_ns for path in outputs(out)}
    (tree / "new.png").write_bytes(png(8))
    (tree / "b.PNG").write_bytes(png(9))
    (tree / "deep/er/c.png").unlink()
    os.utime(tree / "a.png", ns=(7, 7))
    outcome = run(tree, out)
    assert (outcome.worked_on, outcome.totals.pictures, outcome.totals.failed) == (2, 3, 0)
    made = outputs(out)
    assert made["b.sprd"] == codec.encode(png(9), quality=10) and made["new.sprd"] == codec.encode(
        png(8), quality=10
    )
    assert (out / "a.sprd").stat().st_mtime_ns == before["a.sprd"], "another time, but the same contents"
    assert made["deep/er/c.sprd"] == codec.encode(png(2), quality=10), "what is there is not removed"
    assert [Path(row["source"]).name for row in manifest(out)] == ["a.png", "b.PNG", "new.png"]


def test_an_output_of_somebody_else_is_neither_taken_nor_overwritten(tree: Path, tmp_path: Path) -> None:
    """However sound a file is, it belongs to the run only if the run has made it."""
    out, codec = tmp_path / "out", Codec(threads=1)
    run(tree, out)
    foreign = codec.encode(png(7), quality=10)
    (out / "a.sprd").write_bytes(foreign)
    (out / "b.sprd").unlink()
    outcome = run(tree, out)
    assert (outcome.worked_on, outcome.totals.failed) == (2, 1)
    assert "a.sprd already exists; only -f" in outcome.totals.failures[0][1]
    (tree / "a.png").write_bytes(png(6))
    assert run(tree, out).totals.failed == 1 and (out / "a.sprd").read_bytes() == foreign
    assert run(tree, out, force=True).totals.failed == 0
    assert outputs(out)["a.sprd"] == codec.encode(png(6), quality=10)
    os.utime(out / "a.sprd", ns=(7, 7))
    assert run(tree, out).worked_on == 0, "copied to another disk, say"


def test_one_run_at_a_time(tree: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    for first, second in ((None, None), (work, None), (None, work), (work, tmp_path / "other")):
        folder = first or out / ".sprdiff-batch"
        with (
            opened(folder, str(out), "sprdiff batch in out"),
            pytest.raises(BatchError, match=rf"in use by process {os.getpid()} on .*: sprdiff batch in out"),
        ):
            run(tree, out, folder=second)
    assert run(tree, out).totals.pictures == 3


def test_a_record_that_is_damaged(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / ".sprdiff-batch" / "records.sqlite"
    run(tree, tmp_path / "out")
    with closing(sqlite3.connect(path)) as records:
        records.execute("PRAGMA user_version = 9")
    with pytest.raises(BatchError, match="another version of sprdiff"):
        run(tree, tmp_path / "out")
    path.write_bytes(b"no database" * 99)
    with pytest.raises(BatchError, match=r"records\.sqlite cannot be used: file is not a database"):
        run(tree, tmp_path / "out")
