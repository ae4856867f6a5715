"""Tests of streams and shells: every name of standard input and output, streams that are closed, full or
gone, and Ctrl+C."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sprdiff
from conftest import photo
from sprdiff.cli.files import EXTENSIONS, plan
from sprdiff.common.files import as_stdio, descriptor, is_special, write_atomic
from sprdiff.errors import OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="shells of POSIX")
OUT_NAMES = ["/dev/stdout", "/proc/self/fd/1"]
IN_NAMES = ["/dev/stdin", "/dev/fd/0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a picture and its file, in.png and x.sprd."""
    folder = tmp_path_factory.mktemp("streams")
    Image.fromarray(photo(64, 96)).save(folder / "in.png")
    (folder / "x.sprd").write_bytes(sprdiff.encode(folder / "in.png", quality=10))
    return folder


def shell(command: str, place: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command of a shell, in which SPRDIFF stands for the program."""
    program = f"'{sys.executable}' -m sprdiff"
    words = ["sh", "-c", command.replace("SPRDIFF", program)]
    return subprocess.run(words, cwd=place, capture_output=True, check=False, **options)


def one_error(done: subprocess.CompletedProcess[bytes], status: int, words: str) -> None:
    text = done.stderr.decode()
    assert (done.returncode, text.count("\n")) == (status, 1), text
    assert text.startswith("sprdiff: error: ") and words in text and "a bug" not in text


# ---------------------------------------------------------------------------- names of standard input and
# output


@pytest.mark.parametrize("name", OUT_NAMES)
def test_every_name_of_standard_output_gets_the_file_alone(name: str, place: Path) -> None:
    wanted = (place / "x.sprd").read_bytes()
    target = place / "out.sprd"
    target.write_bytes(b"")
    done = shell(
        f"SPRDIFF encode in.png {name} -q 10 > out.sprd", place
    )  # it exists, for the shell has made it
    assert (done.returncode, done.stderr, target.read_bytes()) == (0, b"", wanted)
    done = shell(f"SPRDIFF encode in.png {name} -q 10 >> out.sprd", place)
    assert (done.returncode, done.stderr, target.read_bytes()) == (0, b"", wanted * 2)


@pytest.mark.parametrize("name", IN_NAMES)
def test_every_name_of_standard_input_is_answered_on_standard_output(name: str, place: Path) -> None:
    before = sorted(os.listdir(place))
    wanted = (place / "x.sprd").read_bytes()
    done = shell(f"SPRDIFF encode {name} -q 10 < in.png", place)
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted, b"")
    assert sorted(os.listdir(place)) == before
    assert shell(f"SPRDIFF encode {name} -o folder < in.png", place).returncode == 2


def test_other_open_files_are_written_in_place(place: Path) -> None:
    number = 3
    wanted = (place / "x.sprd").read_bytes()
    done = shell(f"echo before >three; SPRDIFF encode in.png /dev/fd/{number} -q 10 {number}>>three", place)
    assert done.returncode == 0 and (place / "three").read_bytes() == b"before\n" + wanted


def test_names_of_open_files() -> None:
    numbers = {
        "/dev/stdin": 0,
        "/dev/stdout": 1,
        "/dev/stderr": 2,
        "/dev/fd/7": 7,
        "/proc/self/fd/1": 1,
        "/dev/fd//1": 1,
    }
    assert {name: descriptor(name) for name in numbers} == numbers
    assert descriptor(f"/proc/{os.getpid()}/fd/1") == 1 and descriptor("/proc/1/fd/1") is None
    for name in (
        "-",
        "stdout",
        "dev/stdout",
        "/dev/null",
        "/dev/fd",
        "/dev/fd/",
        "/dev/fd/x",
        "a\0b",
        "/dev/stdout.png",
    ):
        assert descriptor(name) is None and as_stdio(name, 1) == name
    assert (
        is_special("/dev/stdout") and as_stdio("/dev/stdout", 1) == "-" and as_stdio("/dev/stdout", 0) != "-"
    )


def test_the_library_knows_the_names_too(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_atomic("/dev/stdout", b"abc")
    assert capfdbinary.readouterr().out == b"abc"
    with pytest.raises(OutputError, match="/dev/fd/999 cannot be written: bad file descriptor"):
        write_atomic("/dev/fd/999", b"abc")


# ---------------------------------------------------------------------------- closed, full, gone


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("SPRDIFF encode in.png - >&-", "standard output is closed"),
        ("SPRDIFF encode in.png new.sprd >&-", "standard output is closed"),
        ("SPRDIFF info >&-", "standard output is closed"),
        ("SPRDIFF encode - <&-", "standard input is closed"),
        ("SPRDIFF info - <&-", "standard input is closed"),
        ("SPRDIFF encode .", ". cannot be read: is a directory"),
        ("SPRDIFF encode /", "/ cannot be read: is a directory"),
        ("SPRDIFF decode .", ". cannot be read: is a directory"),
    ],
)
def test_one_line_for_streams_that_are_closed_and_folders(command: str, words: str, place: Path) -> None:
    one_error(shell(command, place), 1, words)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "command", ["encode in.png -", "encode in.png full.sprd", "--help", "--version", "info"]
)
def test_one_line_for_a_full_disk(command: str, place: Path) -> None:
    one_error(
        shell(f"SPRDIFF {command} > /dev/full", place), 1, "standard output cannot be written: no space left"
    )


def test_with_nothing_to_say_a_closed_output_does_no_harm(place: Path) -> None:
    done = shell("SPRDIFF encode in.png quiet.sprd --quiet -q 10 >&-", place)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (place / "quiet.sprd").read_bytes() == (place / "x.sprd").read_bytes()


def test_closed_streams_do_not_lend_their_numbers(place: Path) -> None:
    """Otherwise the first opened file would be standard output, and would get what is printed."""
    done = shell("SPRDIFF encode in.png closed.sprd -q 10 <&- >&- 2>&-", place)
    assert done.returncode == 1
    assert (place / "closed.sprd").read_bytes() == (place / "x.sprd").read_bytes()
    assert shell("SPRDIFF encode nothing.png 2>&-", place).returncode == 1


@pytest.mark.parametrize("command", ["info x.sprd", "--help"])
def test_a_reader_that_has_gone_is_no_error(command: str, place: Path) -> None:
    done = shell(f"{{ SPRDIFF {command}; echo $? >status; }} | :", place)
    status = (place / "status").read_text().strip()
    assert status in ("0", "141") and done.stderr == b""  # 0: it was done before the reader went


def test_names_that_a_terminal_cannot_show(place: Path) -> None:
    done = shell("SPRDIFF encode in.png naïve.sprd", place, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and b"na\\xefve.sprd" in done.stdout


# ---------------------------------------------------------------------------- Ctrl+C


@pytest.mark.parametrize("stage", ["typer", "PIL", "onnxruntime"])
def test_ctrl_c_in_an_import_is_one_line(stage: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / f"{stage}.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "sprdiff", "encode", "in.png", "-"]
    done = subprocess.run(
        command, cwd=place, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"sprdiff: error: interrupted\n")


def test_ctrl_c_in_the_thumbnailer(place: Path, tmp_path: Path) -> None:
    (tmp_path / "PIL.py").write_text("raise KeyboardInterrupt\n")
    script = "import sys; from sprdiff.start import thumbnailer; sys.exit(thumbnailer())"
    command = [sys.executable, "-c", script, "x.sprd", "thumb.png"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=place, capture_output=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (130, b"sprdiff-thumbnailer: error: interrupted\n")


def test_ctrl_c_while_reading(place: Path) -> None:
    import signal

    command = [sys.executable, "-m", "sprdiff", "info", "-"]

    def restore() -> None:
        # A shell's background job, which the tests may be, ignores the signal and hands that on.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=place, preexec_fn=restore
    ) as child:
        assert child.stdin is not None and child.stderr is not None
        _wait_until_reading(child)
        child.send_signal(signal.SIGINT)
        errors = child.stderr.read()
        assert child.wait(30) == 130 and errors == b"sprdiff: error: interrupted\n"


def _wait_until_reading(child: subprocess.Popen[bytes]) -> None:
    """Wait until the process sleeps in a read of its standard input."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{child.pid}/wchan").read_text().startswith(("pipe_read", "anon_pipe_read")):
                return
        except OSError:
            pass
        time.sleep(0.05)


# ---------------------------------------------------------------------------- names of outputs


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("IMG.2024.05", "IMG.2024.05.sprd"),
        ("IMG.2024.05.jpg", "IMG.2024.05.sprd"),
        ("photo", "photo.sprd"),
        ("photo.final", "photo.final.sprd"),
        ("a.b/c.JPEG", "a.b/c.sprd"),
        ("v1.0/photo.heic", "v1.0/photo.sprd"),
        (".hidden", ".hidden.sprd"),
        ("x.sprd", "x.sprd"),
    ],
)
def test_only_the_name_of_a_format_is_taken_off(source: str, target: str) -> None:
    assert plan([source], None, ".sprd")[0].target == target


def test_a_decoded_file_is_named_in_the_same_way() -> None:
    assert plan(["IMG.2024.05.sprd"], None, ".png")[0].target == "IMG.2024.05.png"
    assert plan(["IMG.2024.05"], None, ".png")[0].target == "IMG.2024.05.png"
    assert {".png", ".heic", ".jxl", ".dng", ".sprd"} < EXTENSIONS


def test_inputs_that_would_become_one_output_are_named(place: Path) -> None:
    done = shell("SPRDIFF encode a/in.png b/other.png c/in.jpg -o folder", place)
    one_error(done, 2, "a/in.png and c/in.jpg would both become folder/in.sprd")
