"""Tests of the command line: what it makes, what it says, and what it refuses (1: one line; 2: wrong
usage)."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

import sprdiff
from conftest import photo
from source_helpers import COMPOSITE, source_type
from sprdiff import cli
from sprdiff.common.messages import one_line
from sprdiff.fileinfo import model_info
from sprdiff.imageio.open import open_rgb
from sprdiff.runtime.weights import default_folder, read_manifest


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process, in an empty folder with one photograph, ``in.png``."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(64, 96)).save("in.png")

    def call(*arguments: str) -> Result:
        status = cli.main(list(arguments))
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def sprd() -> bytes:
    """Return one encoded photograph of 96 x 64 pixels."""
    return sprdiff.encode(Image.fromarray(photo(64, 96)), quality=20)


def process(
    *arguments: str, stdin: bytes | None = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "sprdiff", *arguments], input=stdin, capture_output=True, check=False
    )


def assert_fails(result: Result, status: int, *words: str) -> None:
    """Check that a command fails with one line of these words on standard error, and nothing on standard
    output."""
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith("sprdiff: error: ") and result.err.count("\n") == 1
    for word in words:
        assert word in result.err


def names() -> list[str]:
    return sorted(os.listdir())


def test_encode_and_decode(run: Run) -> None:
    result = run("encode", "in.png", "-q", "30")
    size = Path("in.sprd").stat().st_size
    assert result.status == 0 and result.err == ""
    assert result.out == f"in.png -> in.sprd: {size} bytes, {size * 8 / 6144:.4f} bpp, 96 x 64 pixels\n"
    assert run("decode", "in.sprd", "out.png") == (0, "in.sprd -> out.png: 96 x 64 pixels\n", "")
    with Image.open("out.png") as image:
        assert image.size == (96, 64)
        text = json.loads(image.info["sprdiff"])
    about = sprdiff.info(Path("in.sprd").read_bytes())
    decoder = model_info().decoder_hash
    expected = {"version": sprdiff.__version__, "model": about.model, "decoder": decoder}
    realism = read_manifest(default_folder()).realism[about.level]
    assert text == expected | {"realism": realism, "bytes": size}
    assert source_type("out.png") == COMPOSITE
    assert names() == ["in.png", "in.sprd", "out.png"]


def test_default_name_of_a_decoded_file(run: Run, sprd: bytes) -> None:
    Path("x.sprd").write_bytes(sprd)
    assert run("decode", "--quiet", "x.sprd") == (0, "", "")
    assert Path("x.png").exists()


@pytest.mark.parametrize("option", [["--realism", "0"], ["--steps", "2", "--seed", "5"], ["--threads", "1"]])
def test_decoder_dials(option: list[str], run: Run, sprd: bytes) -> None:
    Path("x.sprd").write_bytes(sprd)
    assert run("decode", "x.sprd", "out.webp", *option).status == 0
    with Image.open("out.webp") as image:
        assert image.size == (96, 64) and image.format == "WEBP"
    assert source_type("out.webp") == (None if "--realism" in option else COMPOSITE)


@pytest.mark.parametrize("option", [["--max-bytes", "400"], ["--bpp", "0.5"], ["--scale", "2", "-q", "5"]])
def test_targets(option: list[str], run: Run) -> None:
    assert run("encode", "in.png", *option).status == 0
    assert Path("in.sprd").stat().st_size <= (384 if "--bpp" in option else 400)
    if "--scale" in option:
        assert sprdiff.info(Path("in.sprd").read_bytes()).scale == 2


def test_unreachable_target_names_the_smallest(run: Run) -> None:
    result = run("encode", "in.png", "--max-bytes", "3")
    assert_fails(result, 1)
    assert any(word.isdigit() for word in result.err.replace(",", " ").split())
    assert names() == ["in.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode"],
        ["encode", "in.png", "-q", "nan"],
        ["encode", "in.png", "-q", "101"],
        ["encode", "in.png", "-q", "-1"],
        ["encode", "in.png", "-q", "many"],
        ["encode", "in.png", "--bpp", "0"],
        ["encode", "in.png", "--bpp", "inf"],
        ["encode", "in.png", "--bpp", "-0.02"],
        ["encode", "in.png", "--max-bytes", "0"],
        ["encode", "in.png", "--max-bytes", "1.5"],
        ["encode", "in.png", "-q", "3", "--bpp", "0.02"],
        ["encode", "in.png", "--bpp", "0.02", "--max-bytes", "900"],
        ["encode", "in.png", "--scale", "5"],
        ["encode", "in.png", "--background", "nocolour"],
        ["encode", "in.png", "--threads", "0"],
        ["encode", "in.png", "--max-pixels", "0"],
        ["encode", "in.png", "other.png"],
        ["encode", "in.png", "b.png", "c.png"],
        ["encode", "in.png", "-", "-o", "folder"],
        ["encode", "in.png", "b.png", "-o", "-"],
        ["encode", "in.png", "in.jpg", "-o", "folder"],
        ["encode", ""],
        ["decode", "in.sprd", "--realism", "1.1"],
        ["decode", "in.sprd", "--realism", "nan"],
        ["decode", "in.sprd", "--steps", "0"],
        ["decode", "in.sprd", "--seed", "-1"],
        ["info", "--nothing"],
        ["nothing"],
        ["train"],
    ],
)
def test_wrong_usage(arguments: list[str], run: Run) -> None:
    assert_fails(run(*arguments), 2)
    assert names() == ["in.png"]


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
def test_inputs_that_cannot_be(command: str, run: Run, tmp_path: Path) -> None:
    Path("empty").touch()
    Path("folder").mkdir()
    Path("text").write_text("neither a picture nor an sprd file")
    before = names()
    for name, words in {
        "empty": "empty",
        "folder": "is a directory",
        "text": "",
        "none": "no such file",
    }.items():
        assert_fails(run(command, name), 1, words)
    assert names() == before


def test_outputs_that_cannot_be(run: Run, sprd: bytes) -> None:
    Path("x.sprd").write_bytes(sprd)
    Path("old.png").write_bytes(b"old")
    Path("folder").mkdir()
    before = names()
    assert_fails(run("decode", "x.sprd", "old.png"), 1, "old.png already exists", "-f")
    assert_fails(run("encode", "in.png", "x.sprd"), 1, "x.sprd already exists")
    assert_fails(run("decode", "x.sprd", "folder"), 1, "folder is a directory")
    assert_fails(run("decode", "x.sprd", "no/out.png"), 1, "no folder")
    assert_fails(run("decode", "x.sprd", "out.xyz"), 1, "extension")
    assert names() == before and Path("old.png").read_bytes() == b"old"
    assert run("decode", "x.sprd", "old.png", "-f").status == 0
    assert open_rgb("old.png").pixels.shape == (64, 96, 3)


def test_the_input_is_never_overwritten(run: Run, sprd: bytes) -> None:
    Path("x.png").write_bytes(sprd)
    Path("link.sprd").symlink_to("in.png")
    assert_fails(run("decode", "-f", "x.png"), 1, "is the input itself")
    assert_fails(run("encode", "-f", "in.png", "link.sprd"), 1, "is the input itself")
    assert Path("x.png").read_bytes() == sprd


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk(run: Run, sprd: bytes) -> None:
    Path("x.sprd").write_bytes(sprd)
    assert_fails(run("encode", "in.png", "/dev/full"), 1, "no space left on device")
    assert_fails(run("decode", "x.sprd", "/dev/full"), 1, "no space left on device")


def test_damaged_file(run: Run, sprd: bytes) -> None:
    Path("x.sprd").write_bytes(sprd[:-1] + bytes([sprd[-1] ^ 1]))
    assert_fails(run("decode", "x.sprd"), 1)
    Path("x.sprd").write_bytes(sprd[:6])
    assert_fails(run("decode", "x.sprd"), 1, "truncated")
    assert names() == ["in.png", "x.sprd"]


def test_limit_on_pixels_both_ways(run: Run, sprd: bytes) -> None:
    Path("x.sprd").write_bytes(sprd)
    assert_fails(run("encode", "in.png", "--max-pixels", "6143"), 1, "96 x 64", "6143")
    assert_fails(run("decode", "x.sprd", "--max-pixels", "6143"), 1, "96 x 64", "6143")


def test_several_inputs(run: Run) -> None:
    Path("broken.png").write_bytes(b"?")
    Image.fromarray(photo(32, 32)).save("b.jpg")
    result = run("encode", "in.png", "broken.png", "b.jpg", "-o", "made/here", "-q", "10")
    assert result.status == 1
    assert result.err.count("\n") == 1 and "broken.png" in result.err
    assert sorted(os.listdir("made/here")) == ["b.sprd", "in.sprd"]
    back = run("decode", "made/here/in.sprd", "made/here/b.sprd", "-o", "back")
    assert back.status == 0 and sorted(os.listdir("back")) == ["b.png", "in.png"]
    assert run("decode", "made/here/in.sprd", "-o", "one.png").status == 0
    assert open_rgb("one.png").pixels.shape == (64, 96, 3)


def test_warnings_name_what_is_dropped(run: Run) -> None:
    Image.new("RGBA", (40, 40), (9, 9, 9, 9)).save(
        "a.png", save_all=True, append_images=[Image.new("RGBA", (40, 40))]
    )
    result = run("encode", "a.png", "--background", "#123456", "-q", "10")
    assert result.status == 0
    assert result.err == "sprdiff: warning: a.png: dropped alpha, 1 further frame\n"


def test_info(run: Run, sprd: bytes) -> None:
    Path("x.sprd").write_bytes(sprd)
    result = run("info", "x.sprd")
    assert result.status == 0 and f"{len(sprd)} bytes" in result.out and "96 x 64" in result.out
    about = json.loads(run("info", "x.sprd", "--json").out)
    assert (about["width"], about["height"], about["bytes"]) == (96, 64, len(sprd))
    assert about["weights"] == "at hand"
    result = run("info", "--json", "x.sprd", "none", "x.sprd")
    assert result.status == 1 and json.loads(result.out) == [about, about]


def test_info_about_the_model(run: Run) -> None:
    result = run("info")
    assert result.status == 0 and "licence" in result.out
    about = json.loads(run("info", "--json").out)
    assert about["preset"] == "tiny" and about["hash"].startswith(about["tag"])
    assert len({about["hash"], about["decoder_hash"], about["encoder_hash"]}) == 3
    for line in (f"tiny-{about['tag']}", about["decoder_hash"][:16], about["encoder_hash"][:16]):
        assert line in result.out
    assert_fails(run("info", "--weights", "."), 1, "manifest.json")


def test_version_and_help(run: Run) -> None:
    assert run("--version").out == f"sprdiff {sprdiff.__version__}\n"
    for arguments in ([], ["--help"], ["encode", "-h"], ["train", "--help"]):
        result = run(*arguments)
        assert result.status == 0 and "Usage" in result.out


def test_training_without_its_packages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    # The options stay: the command line reads their types. The package itself is put back afterwards.
    monkeypatch.setattr("sprdiff.train", importlib.import_module("sprdiff.train"))
    for name in [name for name in sys.modules if name.startswith("sprdiff.train") and "options" not in name]:
        monkeypatch.delitem(sys.modules, name)
    assert_fails(run("train", "pixel", "--data", ".", "--out", "run"), 1, "pip install 'sprdiff[train]'")


def test_an_unexpected_error_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("sprdiff.imageio.open.open_rgb", fail)
    assert_fails(run("encode", "in.png"), 1, "unexpected ZeroDivisionError: two lines", "SPRDIFF_DEBUG")
    monkeypatch.setenv("SPRDIFF_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("encode", "in.png")


def test_an_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sprdiff.imageio.open.open_rgb", interrupt)
    result = run("encode", "in.png")
    assert result == (130, "", "sprdiff: error: interrupted\n")


def test_names_cannot_break_the_line() -> None:
    assert one_line("a\nb\x1b[31m\udcff é") == "a b\\x1b[31m\\udcff é"


def test_pipes(sprd: bytes, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(photo(64, 96)).save(stream, "PNG")
    encoded = process("encode", "-", "-q", "20", stdin=stream.getvalue())
    assert (encoded.returncode, encoded.stdout, encoded.stderr) == (0, sprd, b"")
    decoded = process("decode", "-", "-", stdin=sprd)
    assert decoded.returncode == 0 and decoded.stderr == b""
    assert open_rgb(decoded.stdout).pixels.shape == (64, 96, 3)
    empty = process("encode", "-", stdin=b"")
    assert (empty.returncode, empty.stdout) == (1, b"") and empty.stderr.count(b"\n") == 1


def test_a_reader_that_goes_away(sprd: bytes) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "sprdiff", "decode", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    _, errors = child.communicate(sprd)
    assert child.returncode == 141 and errors == b""


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_no_binary_data_to_a_terminal(tmp_path: Path) -> None:
    import pty

    master, terminal = pty.openpty()
    try:
        command = [sys.executable, "-m", "sprdiff", "encode", "-"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 2 and b"terminal" in done.stderr
