"""Tests of the folder of a comparison: what is read back, what is refused, and what is left untouched."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from eval_helpers import a_row, a_run
from sprdiff.common.files import LOCK
from sprdiff.common.structs import to_json
from sprdiff.errors import OutputError
from sprdiff.evaluate.results import (
    ROWS,
    CodecInfo,
    ImageInfo,
    MetricInfo,
    ResultsError,
    SetRow,
    Skipped,
    finite,
    member,
    read_rows,
    read_run,
    read_sets,
    write_run,
    write_sets,
)
from sprdiff.evaluate.run.folder import earlier_run, taken
from sprdiff.evaluate.targets import Target


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def filled(folder: Path, *lines: bytes) -> Path:
    """Write a folder of results with these lines of rows."""
    folder.mkdir()
    write_run(folder, a_run())
    (folder / ROWS).write_bytes(b"".join(lines))
    return folder


class TestReading:
    def test_rows_come_back(self, tmp_path: Path) -> None:
        failed = dict.fromkeys(["bytes", "bpp", "encode_s", "decode_s", "peak_mb"])
        rows = [
            a_row(),
            a_row(image="ü.png", status="failed", message="no", setting={}, metrics={}, **failed),
        ]
        folder = filled(tmp_path / "out", *map(to_json, rows))
        assert read_rows(folder) == rows
        # A quality of 3 stays an integer: it is what the codec was given.
        assert type(read_rows(folder)[0].setting["quality"]) is int

    def test_rows_at_so_many_bytes_come_back(self, tmp_path: Path) -> None:
        rows = [a_row(), a_row(target_bpp=None, target_bytes=1200), a_row(target_bpp=None, target_bytes=5000)]
        sets = [SetRow("toy", None, 1, {}, {"kid": 1.0}, {}, 1200)]
        folder = filled(tmp_path / "out", *map(to_json, rows))
        write_sets(folder, sets)
        assert read_rows(folder) == rows and read_sets(folder) == sets
        assert [row.target for row in rows] == [Target(0.5), Target(bytes=1200), Target(bytes=5000)]

    def test_folders_of_earlier_versions_are_read(self, tmp_path: Path) -> None:
        """Before there were targets in bytes, neither rows nor runs named them."""
        run, row = msgspec.to_builtins(a_run()), msgspec.to_builtins(a_row())
        assert (run.pop("budgets"), row.pop("target_bytes")) == ([], None)
        (tmp_path / "run.json").write_text(json.dumps(run))
        (tmp_path / ROWS).write_text(json.dumps(row) + "\n")
        assert (read_run(tmp_path), read_rows(tmp_path)) == (a_run(), [a_row()])

    @pytest.mark.parametrize("target", [{"target_bpp": None}, {"target_bytes": 1200}, {"target_bpp": -0.5}])
    def test_row_without_one_target(self, tmp_path: Path, target: dict[str, Any]) -> None:
        line = json.dumps(json.loads(to_json(a_row())) | target).encode() + b"\n"
        with pytest.raises(ResultsError, match="line 1 is damaged: a target is"):
            read_rows(filled(tmp_path / "out", line))

    def test_run_and_sets_come_back(self, tmp_path: Path) -> None:
        run = a_run(skipped_codecs=[Skipped("avif", "absent")])
        sets = [SetRow("toy", 0.5, 1, {"kid": 8}, {"kid": -0.5, "fid": None}, {"fid": "too few"})]
        write_run(tmp_path, run)
        assert read_sets(tmp_path) == []
        write_sets(tmp_path, sets)
        assert (read_run(tmp_path), read_sets(tmp_path)) == (run, sets)

    def test_cut_line_is_left_out(self, tmp_path: Path) -> None:
        whole, cut = to_json(a_row()), to_json(a_row(image="b.png"))
        for length in (1, 50, len(cut) - 1):
            folder = filled(tmp_path / str(length), whole, cut[:length])
            assert read_rows(folder) == [a_row()]

    @pytest.mark.parametrize(
        "line", [b"", b"{}", b"[]", b"nonsense", b"\xff", to_json(a_row())[:-9], b"null"]
    )
    def test_damaged_line(self, tmp_path: Path, line: bytes) -> None:
        folder = filled(tmp_path / "out", to_json(a_row()), line + b"\n", to_json(a_row(image="b.png")))
        with pytest.raises(ResultsError, match=r"rows\.jsonl line 2 is damaged"):
            read_rows(folder)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("codec", 3),
            ("status", "fine"),
            ("bytes", 2.5),
            ("bytes", True),
            ("bpp", "0.25"),
            ("bpp", math.nan),
            ("width", None),
            ("setting", []),
            ("setting", {"quality": [1]}),
            ("metrics", {"psnr": "high"}),
            ("metrics", {"psnr": math.inf}),
        ],
    )
    def test_field_of_another_type(self, tmp_path: Path, field: str, value: Any) -> None:
        line = json.dumps(json.loads(to_json(a_row())) | {field: value}).encode() + b"\n"
        with pytest.raises(ResultsError, match=r"line 1 is damaged: (expected|invalid)"):
            read_rows(filled(tmp_path / "out", line))

    @pytest.mark.parametrize("change", [{"more": 1}, {"codec": ...}])
    def test_other_fields(self, tmp_path: Path, change: dict[str, Any]) -> None:
        content = json.loads(to_json(a_row())) | change
        line = json.dumps({key: value for key, value in content.items() if value is not ...}).encode() + b"\n"
        with pytest.raises(
            ResultsError, match=r"line 1 is damaged: object (contains unknown|missing required) field"
        ):
            read_rows(filled(tmp_path / "out", line))

    def test_row_stored_twice(self, tmp_path: Path) -> None:
        other = a_row(target_bpp=0.25)
        folder = filled(tmp_path / "out", to_json(a_row()), to_json(other), to_json(a_row(bytes=5)))
        with pytest.raises(ResultsError, match="line 3 repeats line 1"):
            read_rows(folder)

    def test_run_of_another_format(self, tmp_path: Path) -> None:
        write_run(tmp_path, a_run(format=2))
        with pytest.raises(ResultsError, match="no results file of format 1"):
            read_run(tmp_path)
        with pytest.raises(ResultsError, match="cannot be read: no such file"):
            read_run(tmp_path / "nowhere")

    def test_infinite_figures_are_stored_as_none(self) -> None:
        assert finite({"psnr": math.inf, "kid": math.nan, "ms_ssim": 1.0}) == {
            "psnr": None,
            "kid": None,
            "ms_ssim": 1.0,
        }

    def test_members_stay_inside_the_folder(self, tmp_path: Path) -> None:
        path = member(
            tmp_path, "images", "sprdiff-tiny@weights=/../a b", Target(0.0138), "kodim01.png", ".png"
        )
        parts = path.relative_to(tmp_path).parts
        assert parts == ("images", "sprdiff-tiny@weights=%2F..%2Fa%20b", "0.0138", "kodim01.png")
        one = Target(bytes=1)
        assert member(tmp_path, "images", "a/b", one, "x", "") != member(
            tmp_path, "images", "a%2Fb", one, "x", ""
        )
        assert member(tmp_path, "images", "a", one, "x", "") != member(
            tmp_path, "images", "a", Target(1.0), "x", ""
        )


class TestHolding:
    def test_new_folder(self, tmp_path: Path) -> None:
        out = tmp_path / "new" / "out"
        with taken(out, a_run()) as results:
            results.begin(set())
            results.append([a_row(), a_row(image="b.png")])
            results.append([a_row(image="c.png")])
        assert [row.image for row in read_rows(out)] == ["a.png", "b.png", "c.png"]
        assert read_run(out) == a_run()

    def test_cut_line_is_dropped_and_the_rest_kept(self, tmp_path: Path) -> None:
        whole, cut = to_json(a_row()), to_json(a_row(image="b.png"))[:-1]
        out = filled(tmp_path / "out", whole, cut)
        with taken(out, a_run()) as results:
            results.begin(set())
            assert results.notes == [f"{out / ROWS}: the last line was cut and is dropped ({len(cut)} bytes)"]
            assert (out / ROWS).read_bytes() == whole
            results.append([a_row(image="b.png")])
        assert (out / ROWS).read_bytes() == whole + cut + b"\n"

    def test_rows_tried_again_are_dropped_and_the_rest_kept(self, tmp_path: Path) -> None:
        rows = [a_row(image=f"{name}.png", status="failed" if name == "b" else "ok") for name in "abc"]
        # Spaces that we would not write: what is kept is kept to the byte.
        lines = [to_json(row).replace(b": ", b":  ") for row in rows]
        out = filled(tmp_path / "out", *lines)
        with taken(out, a_run()) as results:
            results.begin({rows[1].key, ("toy", "d.png", Target(0.5))})
            assert results.rows.keys() == {rows[0].key, rows[2].key}
        assert (out / ROWS).read_bytes() == lines[0] + lines[2]

    def test_damaged_folder_is_not_touched(self, tmp_path: Path) -> None:
        out = filled(tmp_path / "out", b"nonsense\n", to_json(a_row())[:-5])
        before = contents(out)
        with pytest.raises(ResultsError, match="line 1"), taken(out, a_run(rates=[0.25])):
            pass
        assert contents(out) == before

    def test_second_run_is_told_who_holds_it(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        holder = rf"in use by process {os.getpid()} on .*: sprdiff eval photos"
        with (
            taken(out, a_run()),
            pytest.raises(ResultsError, match=holder),
            taken(out, a_run(commands=["other"])),
        ):
            pass
        with taken(out, a_run(commands=["other"])):
            pass

    @pytest.mark.parametrize("name", ["thesis.txt", ROWS, "images"])
    def test_folder_of_something_else(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"precious")
        before = contents(tmp_path)
        with pytest.raises(ResultsError, match="is not empty and holds no results"), taken(tmp_path, a_run()):
            pass
        assert contents(tmp_path) == before and not (tmp_path / LOCK).exists()

    def test_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_bytes(b"precious")
        with pytest.raises(ResultsError, match="not a directory"):
            earlier_run(tmp_path / "out")
        with pytest.raises((ResultsError, OutputError)), taken(tmp_path / "out" / "in", a_run()):
            pass

    def test_codecs_and_rates_are_added(self, tmp_path: Path) -> None:
        out = filled(tmp_path / "out", to_json(a_row()))
        more = a_run(
            rates=[0.25, 1.0], budgets=[1200], codecs=[CodecInfo("jpeg", "9")], commands=["sprdiff eval more"]
        )
        for _ in range(2):
            with taken(out, more) as results:
                results.begin(set())
        assert read_run(out) == a_run(
            rates=[0.25, 0.5, 1.0],
            budgets=[1200],
            codecs=[CodecInfo("toy", "toy 1"), CodecInfo("jpeg", "9")],
            commands=["sprdiff eval photos", "sprdiff eval more"],
        )
        assert read_rows(out) == [a_row()]

    def test_another_machine_is_told(self, tmp_path: Path) -> None:
        out = filled(tmp_path / "out", to_json(a_row()))
        with taken(out, a_run(cpu="quicker abacus")) as results:
            assert results.notes == [
                "earlier rows were measured on another machine (abacus): times do not compare"
            ]

    IMAGE = ImageInfo("a.png", 160, 200, "00ff")
    METRIC = MetricInfo("psnr", "PSNR", "dB", "up", "known", "image", None)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"images": [IMAGE, replace(IMAGE, name="b.png")]}, "it is without b.png"),
            ({"images": [replace(IMAGE, name="c.png")]}, "it has a.png, which is not among"),
            ({"images": [replace(IMAGE, sha256="00aa")]}, "a.png is another picture now"),
            ({"metrics": [METRIC, replace(METRIC, name="dists")]}, "it was measured without dists"),
            (
                {"metrics": [], "skipped_metrics": [Skipped("psnr", "gone")]},
                r"it was measured with psnr, which is not at hand now \(gone\)",
            ),
            ({"metrics": [replace(METRIC, weights="w.pth 12")]}, "psnr was known, None; now known, w.pth 12"),
            ({"codecs": [CodecInfo("toy", "toy 2")]}, "holds rows of toy 'toy 1', now it is 'toy 2'"),
        ],
    )
    def test_another_comparison(self, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
        out = filled(tmp_path / "out", to_json(a_row()))
        before = contents(out)
        with pytest.raises(ResultsError, match=words), taken(out, a_run(**changes)):
            pass
        assert contents(out) == before

    def test_version_of_a_codec_not_asked_for_does_not_matter(self, tmp_path: Path) -> None:
        out = filled(tmp_path / "out", to_json(a_row()))
        with taken(out, a_run(codecs=[CodecInfo("jpeg", "9")])):
            pass
