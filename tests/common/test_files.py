"""Tests of writing: whole or not at all, never over another file by accident; image files by extension."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import photo
from sprdiff.common.files import MAX_OBJECT, check_output, read_bytes, read_object, write_atomic
from sprdiff.errors import BitstreamError, OutputError, WeightsError
from sprdiff.imageio.open import open_rgb
from sprdiff.imageio.save import FORMATS, encode_image, output_format, save_image


def test_writes_and_refuses_to_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    write_atomic(path, b"one")
    with pytest.raises(OutputError, match="already exists"):
        write_atomic(path, b"two")
    assert path.read_bytes() == b"one"
    write_atomic(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    write_atomic(tmp_path / "new", b"again", force=True)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomic(link, b"new", force=True)
    assert link.is_symlink() and target.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("moment", "force"), [("fsync", False), ("fsync", True), ("replace", True), ("link", False)]
)
def test_a_failed_write_leaves_nothing(
    moment: str, force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.bin"
    if force:
        path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, moment, full)
    if moment == "link":
        monkeypatch.setattr(os, "replace", full)  # where there are no links, renaming is tried
    with pytest.raises(OutputError, match="no space left on device"):
        write_atomic(path, b"new", force=force)
    monkeypatch.undo()
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"old"] if force else [])


def test_another_process_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.bin"
    sync = os.fsync

    def race(handle: int) -> None:
        sync(handle)
        path.write_bytes(b"theirs")

    monkeypatch.setattr(os, "fsync", race)
    with pytest.raises(OutputError, match="already exists"):
        write_atomic(path, b"ours")
    assert path.read_bytes() == b"theirs" and len(list(tmp_path.iterdir())) == 1


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_atomic(tmp_path / "out.bin", b"data")
    assert (tmp_path / "out.bin").read_bytes() == b"data"


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "where"):
        for force in (False, True):
            with pytest.raises(OutputError):
                check_output(path, force=force)
            with pytest.raises(OutputError):
                write_atomic(path, b"", force=force)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_devices_are_written_in_place() -> None:
    write_atomic("/dev/null", b"data", force=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OutputError, match="no space left on device"):
        write_atomic("/dev/full", b"data")


def test_standard_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in")))
    write_atomic("-", b"out")
    assert out.buffer.getvalue() == b"out"
    assert read_bytes("-", BitstreamError) == b"in"


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(BitstreamError, match="cannot be read"):
            read_bytes(path, BitstreamError)


@pytest.mark.parametrize("extension", sorted(FORMATS))
@pytest.mark.parametrize("grey", [False, True])
def test_formats_by_extension(extension: str, grey: bool, tmp_path: Path) -> None:
    pixels = photo(40, 56)
    image = Image.fromarray(pixels).convert("L" if grey else "RGB")
    path = tmp_path / f"out{extension.upper()}"
    save_image(path, image, {"sprdiff": "text"})
    back = open_rgb(path)
    assert back.grey == grey or extension in (".webp", ".avif")
    assert np.abs(back.pixels.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3
    with pytest.raises(OutputError, match="already exists"):
        save_image(path, image)


def test_png_text(tmp_path: Path) -> None:
    save_image(tmp_path / "out.png", Image.new("RGB", (2, 2)), {"sprdiff": '{"bytes": 7}'})
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["sprdiff"] == '{"bytes": 7}'


def test_output_formats(tmp_path: Path) -> None:
    assert output_format("-") == output_format("a.PNG") == "PNG"
    for name in ("out", "out.sprd", "out.xyz", "png"):
        with pytest.raises(OutputError, match="no image format has this extension"):
            output_format(tmp_path / name)
    with pytest.raises(OutputError, match="cannot be written as WEBP"):
        encode_image(Image.new("L", (16384, 1)), "WEBP")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: no such file"),
        (b"nothing", "is not a readable JSON file"),
        (b"\xff\xff{", "is not a readable JSON file"),
        (b"[" * 200_000, "is not a readable JSON file"),
        (b"[1, 2]", "must hold one JSON object"),
        (b" " * (MAX_OBJECT + 1), "is larger than 16 MiB"),
    ],
    ids=["missing", "text", "no UTF-8", "deep", "list", "large"],
)
def test_what_is_no_json_object_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_object(path, WeightsError)


def test_a_pipe_is_no_json_object(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="cannot be read: no regular file"):
        read_object(tmp_path / "pipe", WeightsError)
