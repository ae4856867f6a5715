"""Tests of links and codes that hold a photograph."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image

import sprdiff.viewer.links
from conftest import photo
from packet_helpers import file_of
from sprdiff.cli import main
from sprdiff.errors import ViewerError
from sprdiff.viewer.links import CODE_BYTES, MAX_LINK, check_viewer, most_bytes, to_code, to_link

VIEWER = "https://example.org/view/"
GOLDEN = Path(__file__).parents[1] / "data" / "tiny" / "odd.sprd"


def bytes_of(link: str) -> bytes:
    """Return the file that a link holds."""
    viewer, _, fragment = link.partition("#")
    assert viewer == VIEWER
    return base64.urlsafe_b64decode(fragment + "=" * (-len(fragment) % 4))


def read_back(image: bytes) -> bytes:
    """Return what an independent decoder finds in a code."""
    with Image.open(io.BytesIO(image)) as picture:
        (found,) = zxingcpp.read_barcodes(picture)
    assert found.format == zxingcpp.BarcodeFormat.QRCode
    return bytes(found.bytes)


@pytest.mark.parametrize("size", [15, 16, 17, 700, 3000])
def test_the_fragment_is_the_file(size: int) -> None:
    link = to_link(file_of(size), VIEWER)
    assert bytes_of(link) == file_of(size)
    assert link.isascii() and not set(link.partition("#")[2]) & set("+/=")


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "example.org",
        "ftp://example.org/",
        "https://",
        "https://a/#b",
        "https://a b/",
        "https://é/",
        "http://[",
    ],
)
def test_what_is_no_address_of_a_page(wrong: str) -> None:
    with pytest.raises(ViewerError, match="not the address of a page"):
        check_viewer(wrong)


def test_a_link_longer_than_anybody_takes() -> None:
    assert len(to_link(file_of(MAX_LINK * 3 // 4 - 30), VIEWER)) <= MAX_LINK
    with pytest.raises(ViewerError, match=f"more than {MAX_LINK}"):
        to_link(file_of(MAX_LINK * 3 // 4), VIEWER)


@pytest.mark.parametrize("size", [15, 200, 700, 2000])
def test_a_decoder_reads_the_link_of_a_code(size: int) -> None:
    assert read_back(to_code(file_of(size), VIEWER)).decode("ascii") == to_link(file_of(size), VIEWER)


@pytest.mark.parametrize("size", [15, 200, 700, 2000, CODE_BYTES])
def test_a_decoder_reads_the_bytes_of_a_code(size: int) -> None:
    assert read_back(to_code(file_of(size), None)) == file_of(size)


@pytest.mark.parametrize("viewer", [VIEWER, None])
def test_the_largest_file_of_a_code(viewer: str | None) -> None:
    most = most_bytes(viewer)
    assert read_back(to_code(file_of(most), viewer))
    with pytest.raises(ViewerError, match=f"--max-bytes {most} would"):
        to_code(file_of(most + 1), viewer)


def test_a_larger_file_takes_a_larger_code() -> None:
    sides = []
    for size in (20, 100, 500, 2000):
        with Image.open(io.BytesIO(to_code(file_of(size), None))) as picture:
            sides.append(picture.width)
    assert sides == sorted(set(sides))


def test_codes_as_drawings() -> None:
    assert to_code(file_of(50), VIEWER, "svg").startswith(b"<?xml")


def test_without_segno(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(ViewerError, match=r"pip install 'sprdiff\[qr\]'"):
        to_code(file_of(50), VIEWER)


def test_link_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["link", str(GOLDEN), "--viewer", VIEWER]) == 0
    assert bytes_of(capsys.readouterr().out.strip()) == GOLDEN.read_bytes()


def test_link_of_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(photo(96, 128)).save(tmp_path / "photo.png")
    assert main(["link", str(tmp_path / "photo.png"), "--viewer", VIEWER, "--max-bytes", "150"]) == 0
    assert len(bytes_of(capsys.readouterr().out.strip())) <= 150


def test_qr_of_a_picture_fits_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(photo(384, 512)).save(tmp_path / "photo.png")  # 0.02 bits per pixel are 491 bytes
    monkeypatch.setattr(sprdiff.viewer.links, "CODE_BYTES", 300)
    assert (
        main(["qr", str(tmp_path / "photo.png"), str(tmp_path / "code.png"), "--viewer", VIEWER, "--quiet"])
        == 0
    )
    data = bytes_of(read_back((tmp_path / "code.png").read_bytes()).decode("ascii"))
    assert 0.9 * most_bytes(VIEWER) < len(data) <= most_bytes(VIEWER)


def test_qr_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = tmp_path / "code.png"
    assert main(["qr", str(GOLDEN), str(code), "--raw"]) == 0
    assert read_back(code.read_bytes()) == GOLDEN.read_bytes()
    assert f"{len(GOLDEN.read_bytes())} bytes" in capsys.readouterr().out
    assert main(["qr", str(GOLDEN), str(code), "--raw"]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["link", "FILE"], 2, "--viewer"),
        (["link", "FILE", "--viewer", "nowhere"], 2, "not the address of a page"),
        (["link", "FILE", "--viewer", VIEWER, "--bpp", "0.1"], 2, "coded already"),
        (["link", "CUT", "--viewer", VIEWER], 1, "truncated"),
        (["link", "TEXT", "--viewer", VIEWER], 1, "not an image"),
        (["qr", "FILE", "code.png"], 2, "either --viewer URL or --raw"),
        (["qr", "FILE", "code.png", "--raw", "--viewer", VIEWER], 2, "either --viewer URL or --raw"),
        (["qr", "FILE", "code.gif", "--raw"], 2, "neither .png nor .svg"),
        (["qr", "LARGE", "code.png", "--raw"], 1, "do not fit into one code"),
    ],
)
def test_wrong_usage_is_one_line(
    words: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"FILE": GOLDEN.read_bytes(), "CUT": b"SPR\x20", "TEXT": b"no picture", "LARGE": file_of(3000)}
    for name, data in given.items():
        (tmp_path / name).write_bytes(data)
    assert (
        main([str(tmp_path / word) if word in (*given, "code.png", "code.gif") else word for word in words])
        == status
    )
    complaint = capsys.readouterr().err
    assert said in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "code.png").exists()
