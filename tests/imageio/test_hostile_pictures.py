"""Tests of hostile pictures: no program is run, no second file is opened, and frames come to an end."""

from __future__ import annotations

import inspect
import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import attack_doors as doors
from conftest import photo
from serve_helpers import api, refused
from sprdiff.errors import ImageError
from sprdiff.imageio.formats import MOST_FRAMES, RASTER, Bounded
from sprdiff.imageio.open import open_rgb

ROOT = Path(__file__).parents[2]


def attack(name: str) -> bytes:
    return (doors.ATTACKS / name).read_bytes()


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a stand-in named gs that notes that it was run."""
    log = tmp_path / "gs.log"
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "gs"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eps.eps", b"is PostScript (EPS), a program that would have to be run: that is not supported"),
        ("iptc_eps.iim", b"is not an image that can be read"),
    ],
)
def test_nothing_runs_ghostscript(name: str, reason: bytes, ghostscript: Path) -> None:
    path = doors.ATTACKS / "picture" / name
    for given in ([str(path), "-o", "out.sprd"], ["-", "-o", "out.sprd"]):
        command = [sys.executable, "-m", "sprdiff", "encode", *given]
        done = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=False)
        assert done.returncode == 1 and reason in done.stderr
        assert done.stderr.count(b"\n") == 1
    with (
        Image.open(path) as image,
        pytest.raises(ImageError, match="which is not opened here: load it first"),
    ):
        open_rgb(image)
    assert not ghostscript.exists()


@pytest.mark.parametrize("name", ["eps.eps", "iptc_eps.iim"])
def test_no_upload_runs_ghostscript(name: str, ghostscript: Path) -> None:
    with api() as service:
        refused(service.post("/encode", (doors.ATTACKS / "picture" / name).read_bytes()), 415, "not")
    assert not ghostscript.exists()


def test_the_stand_in_is_what_pillow_would_run(ghostscript: Path) -> None:
    """Without this the test above could pass for any reason."""
    command = [sys.executable, "-c", "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"]
    subprocess.run([*command, doors.ATTACKS / "picture" / "iptc_eps.iim"], capture_output=True, check=False)
    assert ghostscript.exists()


def test_an_image_that_its_program_has_loaded_is_taken(tmp_path: Path) -> None:
    Image.fromarray(photo(128, 128)).save(tmp_path / "a.icns")
    with Image.open(tmp_path / "a.icns") as image:
        with pytest.raises(ImageError, match="format ICNS"):
            open_rgb(image)
        image.load()
        assert open_rgb(image).pixels.shape == (*image.size, 3)


def test_no_plug_in_that_is_allowed_opens_a_second_file() -> None:
    Image.init()
    modules: dict[str, Any] = {k: inspect.getmodule(Image.OPEN[k][0]) for k in RASTER & set(Image.ID)}
    found = {kind: inspect.getsource(module) for kind, module in modules.items()}
    assert len(found) > 15
    for kind, source in found.items():
        code = re.sub(r"^\s*#.*$", "", source, flags=re.M)
        if kind in ("JPEG", "MPO"):  # load_djpeg, which nothing calls; the factory of MPO, over the same file
            code = code.replace("with Image.open(path) as _im", "").replace(
                "im = JpegImageFile(fp, filename)", ""
            )
        assert not re.search(
            r"\bImage\.open\(|= (\w+\.)?\w+ImageFile\(|subprocess\.\w+\((?!\[\"djpeg)", code
        ), kind


def test_the_list_in_the_docs_is_the_list() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    listed = re.search(r"These formats are opened: ([^.]+)\.", text)
    assert listed is not None and set(re.findall(r"\w+", listed[1])) == RASTER


def test_frames_are_counted_to_an_end() -> None:
    body = struct.pack("<H", 8) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1))
    )
    size = len(body) + 4
    pages = b"".join(body + struct.pack("<I", 8 + (n + 1) * size) for n in range(MOST_FRAMES + 5))
    picture = open_rgb(b"II*\0" + struct.pack("<I", 8) + pages + body + bytes(4))
    assert picture.dropped == (f"at least {MOST_FRAMES - 1} further frames",)
    stream = io.BytesIO()
    Image.new("P", (1, 1)).save(stream, "GIF")
    gif = stream.getvalue()
    frame = gif[gif.index(b",") : -1]
    assert "at least 999" in open_rgb(gif[:-1] + frame * 1200 + b";").dropped[0]
    assert open_rgb(gif[:-1] + frame * 20 + b";").dropped == ("20 further frames",)


def test_a_stream_ends_where_its_picture_must() -> None:
    bounded = Bounded(io.BytesIO(bytes(100)), "the image")
    bounded._left = 40
    assert len(bounded.read(30)) == 30
    with pytest.raises(ImageError, match="more bytes than a picture"):
        bounded.read(30)
    bounded.seek(0)
    with pytest.raises(ImageError, match="more bytes than a picture"):
        bounded.readline()
    bounded.seek(0)
    with pytest.raises(ImageError, match="more bytes than a picture"):
        bounded.read()
    bounded.seek(0)
    bounded.allow(1)
    assert len(bounded.read()) == 100 and bounded.tell() == 100


def test_standard_input_is_looked_at_before_it_is_read_whole() -> None:
    endless = "import sys\nfrom sprdiff.cli import main\nsys.exit(main(sys.argv[1:]))"
    for command in (["encode", "-", "out.sprd"], ["decode", "-", "out.png"], ["info", "-"]):
        with open("/dev/zero", "rb") as zeros:
            done = subprocess.run(
                [sys.executable, "-c", endless, *command],
                stdin=zeros,
                capture_output=True,
                check=False,
                timeout=60,
            )
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1
