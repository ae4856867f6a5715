"""Tests of the command ``sprdiff eval``: its options, its bar, and what it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval_helpers import a_row, write_photos
from sprdiff import cli
from sprdiff.cli.progress import shown
from sprdiff.evaluate.results import read_rows
from sprdiff.evaluate.targets import Target


class TestUsage:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_photos(Path("photos"), 1)
        Path("empty").mkdir()
        Path("spoilt").mkdir()
        Path("spoilt/x.png").write_bytes(b"words")

    EXTERNAL = (
        "--external-encode",
        "mine=false {input} {output} {quality}",
        "--external-decode",
        "mine=false {input} {output}",
    )

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["photos"], "Missing option"),
            (
                ["photos", "-o", "out", "--bpp", "1,x"],
                "rates are numbers above 0 with commas between, not 1,x",
            ),
            (["photos", "-o", "out", "--bpp", "0"], "rates are numbers above 0"),
            (["photos", "-o", "out", "--bpp", "nan"], "rates are numbers above 0"),
            (["photos", "-o", "out", "--bpp", ""], "rates are numbers above 0"),
            (["photos", "-o", "out", "--bytes", "1200,0"], "sizes are whole numbers of bytes above 0"),
            (["photos", "-o", "out", "--bytes", "1.5"], "with commas between, not 1.5"),
            (["photos", "-o", "out", "--bytes", "", "--bpp", "1"], "sizes are whole numbers"),
            (["photos", "-o", "out", "-j", "0"], "-j"),
            (["photos", "-o", "out", "--limit", "0"], "--limit"),
            (["photos", "-o", "out", "--codecs", "jpeg,mpeg"], "mpeg"),
            (["photos", "-o", "out", "--codecs", ""], "there is no codec"),
            (["photos", "-o", "out", *EXTERNAL], "codec mine needs --external-quality too"),
            (["photos", "-o", "out", "--external-encode", "mine"], "takes NAME=VALUE, not mine"),
            (["photos", "-o", "out", *EXTERNAL, *EXTERNAL], "--external-encode for mine is given twice"),
            (
                [
                    "photos",
                    "-o",
                    "out",
                    *(word.replace("{output}", "x") for word in EXTERNAL),
                    "--external-quality",
                    "mine=1:2",
                ],
                "needs {output}",
            ),
            (
                ["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1"],
                "takes FROM:TO or FROM:TO:STEP",
            ),
            (["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1:2:3:4"], "takes FROM:TO"),
            (["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1:2:0"], "takes FROM:TO"),
            (["photos", "-o", "out", *EXTERNAL, "--external-quality", "mine=1:9:0.0001"], "80001 qualities"),
        ],
    )
    def test_wrong_usage(self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("sprdiff: error: ") and words in err and err.count("\n") == 1
        assert not Path("out").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["nowhere", "-o", "out"], "nowhere cannot be read: no such file or directory"),
            (["photos/a.png", "-o", "out"], "not a directory"),
            (["empty", "-o", "out"], "no images in empty"),
            (["spoilt", "-o", "out"], "x.png"),
            (["photos", "-o", "photos"], "photos is not empty and holds no results"),
            (["photos", "-o", "out", "--features", "nothing.h5"], "nothing.h5"),
        ],
    )
    def test_refused(self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", *arguments, "--codecs", "jpeg"]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("sprdiff: error: ") and words in err and err.count("\n") == 1
        assert not Path("out").exists() and os.listdir("photos") == ["a.png"]

    def test_rate_that_no_codec_reaches(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bpp", "0.0001,1"]) == 1
        out, err = capsys.readouterr()
        assert out == "out: 2 rows, 1 unreached\n"
        assert err.splitlines()[-1] == "sprdiff: error: no codec reaches 0.0001 bpp on any image"

    def test_bytes_alone_or_beside_bpp(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bytes", "3000,90"]) == 1
        out, err = capsys.readouterr()
        assert out == "out: 2 rows, 1 unreached\n", "the usual rates are not asked for as well"
        assert err.splitlines()[-1] == "sprdiff: error: no codec reaches 90 bytes on any image"
        assert (
            cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bytes", "3000", "--bpp", "1"])
            == 0
        )
        assert capsys.readouterr().out == "out: 2 rows\n"
        assert [row.target for row in read_rows(Path("out"))] == [
            Target(bytes=90),
            Target(bytes=3000),
            Target(1.0),
        ]
        assert cli.main(["report", "out", "--picture-rates", "1,3000B"]) == 0
        text = Path("out/report/report.md").read_text()
        assert "Means at 1 bpp" in text and "**At 3000 bytes** (0.7748 bpp)" in text
        assert cli.main(["report", "out", "--picture-rates", "3000b"]) == 2
        assert "rates are bits per pixel (0.0203) or bytes (1200B)" in capsys.readouterr().err

    def test_failed_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        external = [*self.EXTERNAL, "--external-quality", "mine=9:1:4"]
        assert cli.main(["eval", "photos", "-o", "out", "--codecs", "jpeg", "--bpp", "1", *external]) == 1
        out, err = capsys.readouterr()
        assert out == "out: 2 rows, 1 failed\n"
        assert err.splitlines()[-1].startswith("sprdiff: error: mine, a.png, 1 bpp: ")
        # It has joined without being among --codecs, and is written down so that a shell takes it apart
        # again.
        assert (
            "'mine=false {input} {output} {quality}'"
            in json.loads(Path("out/run.json").read_text())["commands"][0]
        )

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("63:60", (63, 62, 61, 60)),
            ("1:10:4", (1, 5, 9)),
            ("0.5:2:0.5", (0.5, 1, 1.5, 2)),
            ("5:5", (5,)),
            ("3:0:1.5", (3, 1.5, 0)),
        ],
    )
    def test_qualities_of_external_codecs(self, text: str, values: tuple[float, ...]) -> None:
        from sprdiff.cli.eval import parse_external

        (codec,) = parse_external([self.EXTERNAL[1]], [self.EXTERNAL[3]], [f"mine={text}"])
        assert tuple(codec.qualities) == values and codec.name == "mine"


def test_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown() as progress:
        progress.begin(2, 4)
        progress.done([a_row()])
        progress.note("without avif")
        progress.done([a_row(status="failed", message="no")])
    out, err = capsys.readouterr()
    assert out == "" and "2/2" in err
    assert "sprdiff: warning: without avif" in err and "sprdiff: error: toy, a.png, 0.5 bpp: no" in err


def test_help_is_light() -> None:
    show = "print(sorted(sys.modules), file=sys.stderr)"
    code = f"import sprdiff.cli, sys; sprdiff.cli.main(['eval', '--help']); {show}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--external-quality" in done.stdout
    assert not {"'numpy'", "'torch'", "'PIL'", "'scipy'"} & set(done.stderr.strip("[]\n").split(", "))
