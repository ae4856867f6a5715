"""Tests of previews in Linux file managers: the MIME package, the thumbnailer entry and the thumbnailer
itself."""

from __future__ import annotations

import configparser
import importlib
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sprdiff
from pillow_helpers import empty, sprd
from source_helpers import COMPOSITE, source_type
from sprdiff import pillow, thumbnailer

ROOT = Path(__file__).parents[2]
MIME_PACKAGE = ROOT / "share" / "mime" / "packages" / "sprdiff.xml"
ENTRY = ROOT / "share" / "thumbnailers" / "sprdiff.thumbnailer"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SPACE = {"": "http://www.freedesktop.org/standards/shared-mime-info"}

Fails = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("x.sprd").write_bytes(sprd(240, 320))
    return tmp_path


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run the thumbnailer, which must fail; return its one line on standard error, without the program's
    name."""

    def call(*arguments: str, status: int = 1) -> str:
        before = sorted(os.listdir())
        if status == 2:
            with pytest.raises(SystemExit) as caught:
                thumbnailer.main(arguments)
            assert caught.value.code == 2
        else:
            assert thumbnailer.main(arguments) == status
        assert sorted(os.listdir()) == before
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        return err.removeprefix("sprdiff-thumbnailer: error: ").rstrip("\n")

    return call


# ---- the files that describe the format


def mime_type() -> ET.Element:
    (found,) = ET.parse(MIME_PACKAGE).getroot().findall("mime-type", SPACE)
    return found


def test_the_mime_package_names_type_and_extension() -> None:
    assert mime_type().get("type") == pillow.MIME
    assert [glob.get("pattern") for glob in mime_type().findall("glob", SPACE)] == ["*" + pillow.EXTENSION]
    assert mime_type().findtext("comment", namespaces=SPACE)


def matches(rule: ET.Element, data: bytes) -> bool:
    """Whether data begin as a rule says, and as one of the rules inside it does."""
    start = int(rule.get("offset", ""))
    if rule.get("type") == "string":
        value = rule.get("value", "").encode()
        fits = data[start : start + len(value)] == value
    else:
        assert rule.get("type") == "byte"
        byte, mask = int(rule.get("value", ""), 0), int(rule.get("mask", "0xff"), 0)
        fits = len(data) > start and data[start] & mask == byte
    inner = rule.findall("match", SPACE)
    return fits and (not inner or any(matches(further, data) for further in inner))


@pytest.mark.parametrize(
    ("data", "ours"),
    [
        (sprd(), True),
        (b"SPR\x2e\x02ab", True),
        (b"SPR\x10\x01ab", False),  # version 1
        (b"SPRING is here", False),
        (b"SPR is a word", False),
        (b"SPR\x20", False),
        (b"\x89PNG\r\n", False),
    ],
)
def test_the_magic_of_the_mime_package(data: bytes, ours: bool) -> None:
    (rule,) = mime_type().findall("magic/match", SPACE)
    assert matches(rule, data) is ours


@pytest.mark.skipif(shutil.which("update-mime-database") is None, reason="no update-mime-database")
def test_the_mime_package_with_the_real_tool(tmp_path: Path) -> None:
    packages = tmp_path / "mime" / "packages"
    packages.mkdir(parents=True)
    shutil.copy(MIME_PACKAGE, packages)
    command = ["update-mime-database", str(tmp_path / "mime")]
    # It warns when applications would not look into the folder.
    surroundings = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert "50:image/x-sprdiff:*.sprd\n" in (tmp_path / "mime" / "globs2").read_text("utf-8")
    # [priority:type], then lines of >offset=length value&mask
    magic = b"[50:image/x-sprdiff]\n>0=\x00\x03SPR\n1>3=\x00\x01\x20&\xf0\n"
    magic += b"2>4=\x00\x01\x01\n2>4=\x00\x01\x02\n"
    assert magic in (tmp_path / "mime" / "magic").read_bytes()


def test_the_entry_of_the_thumbnailer(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = read_entry()
    assert set(entry) == {"TryExec", "Exec", "MimeType"}
    assert entry["MimeType"] == pillow.MIME + ";"
    assert entry["TryExec"] == shlex.split(entry["Exec"])[0] == thumbnailer.NAME
    module, _, function = PROJECT["project"]["scripts"][entry["TryExec"]].partition(":")
    start = getattr(importlib.import_module(module), function)
    monkeypatch.setattr(thumbnailer, "main", lambda: 17)
    assert start() == 17


def read_entry() -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ENTRY, "utf-8")
    assert parser.sections() == ["Thumbnailer Entry"]
    return dict(parser["Thumbnailer Entry"])


def test_the_wheel_brings_both_files() -> None:
    shared = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for path in (MIME_PACKAGE, ENTRY):
        name = path.relative_to(ROOT).as_posix()
        assert shared[name] == name


# ---- the thumbnailer


def test_as_a_file_manager_runs_it(folder: Path) -> None:
    """The command of the entry runs in a process of its own, with a name that needs quoting."""
    source = folder / "a photo's ü.sprd"
    source.write_bytes(sprd(240, 320))
    os.utime(source, (1_700_000_000, 1_700_000_000))
    target = folder / "made by %s.png"
    words = {"%s": "128", "%u": source.as_uri(), "%i": str(source), "%o": str(target)}
    command = [words.get(word, word) for word in shlex.split(read_entry()["Exec"])]
    program = [sys.executable, "-m", "sprdiff.thumbnailer"]
    done = subprocess.run([*program, *command[1:]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with Image.open(target) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (128, 96), "RGB")
        assert image.info == {
            "Thumb::URI": source.as_uri(),
            "Thumb::MTime": "1700000000",
            "Thumb::Size": str(len(sprd(240, 320))),
            "Thumb::Mimetype": "image/x-sprdiff",
            "Thumb::Image::Width": "320",
            "Thumb::Image::Height": "240",
            "Software": f"sprdiff {sprdiff.__version__}",
        }


@pytest.mark.parametrize(
    ("size", "made"), [("1", (1, 1)), ("160", (160, 120)), ("300", (300, 225)), ("4096", (320, 240))]
)
def test_sizes(size: str, made: tuple[int, int], folder: Path) -> None:
    assert thumbnailer.main(["-s", size, "x.sprd", "out.png"]) == 0
    with Image.open("out.png") as image:
        assert image.size == made
        assert image.info["Thumb::URI"] == (folder / "x.sprd").as_uri()


@pytest.mark.parametrize(("size", "realism"), [(160, 0.0), (161, None)])
def test_up_to_half_the_size_the_coarse_picture_is_shown(
    size: int, realism: float | None, folder: Path
) -> None:
    assert thumbnailer.main(["-s", str(size), "x.sprd", "out.png"]) == 0
    wanted = sprdiff.decode(sprd(240, 320), realism=realism)
    assert source_type("out.png") == (None if realism == 0 else COMPOSITE)
    with Image.open("out.png") as image:
        difference = np.asarray(image, np.float64) - np.asarray(
            wanted.resize(image.size, Image.Resampling.LANCZOS)
        )
    assert np.sqrt(np.mean(difference**2)) < 1


def test_a_file_that_exists_is_replaced_but_not_by_a_failure(folder: Path, fails: Fails) -> None:
    Path("out.png").write_bytes(b"old")
    Path("bad.sprd").write_bytes(sprd(240, 320)[:-1])
    assert fails("bad.sprd", "out.png").startswith("bad.sprd: the file is damaged")
    assert Path("out.png").read_bytes() == b"old"
    assert thumbnailer.main(["x.sprd", "out.png"]) == 0
    with Image.open("out.png") as image:
        assert image.size == (256, 192)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"SPR", "truncated"),
        (b"GIF89a", "not an sprd file"),
        (sprd()[:12], "damaged or truncated"),
        (empty(100, 100), "weights"),
        (empty(2**20, 2**20), "1048576 x 1048576 pixels, above the limit"),
    ],
    ids=["empty", "magic", "gif", "cut", "other weights", "bomb"],
)
def test_files_that_cannot_be_shown(data: bytes, words: str, folder: Path, fails: Fails) -> None:
    Path("bad.sprd").write_bytes(data)
    line = fails("bad.sprd", "out.png")
    assert line.startswith("bad.sprd: ") and words in line


def test_names_that_cannot_be(folder: Path, fails: Fails) -> None:
    assert fails("none.sprd", "out.png") == "none.sprd cannot be read: no such file or directory"
    assert fails(".", "out.png") == ". cannot be read: is a directory"
    assert "no folder" in fails("x.sprd", "none/out.png")
    assert fails("a\nb\x1b[31m.sprd", "out.png").startswith("a b\\x1b[31m.sprd ")


@pytest.mark.parametrize("size", ["0", "-1", "4097", "many", "1.5", "９"])
def test_sizes_that_cannot_be(size: str, folder: Path, fails: Fails) -> None:
    assert "from 1 to 4096" in fails("--size=" + size, "x.sprd", "out.png", status=2)


def test_wrong_usage(folder: Path, fails: Fails) -> None:
    assert "OUTPUT" in fails("x.sprd", status=2)


def test_an_unexpected_error_is_one_line(folder: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(thumbnailer, "thumbnail", fail)
    assert fails("x.sprd", "out.png") == "x.sprd: ZeroDivisionError"
