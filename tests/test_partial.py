"""Tests of files that were cut off: they are decoded when asked for, and never taken for whole ones; with the
shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from conftest import photo
from sprdiff.cli import main
from sprdiff.codec import Codec
from sprdiff.errors import BitstreamError, ModelMismatchError
from sprdiff.fileinfo import info
from sprdiff.format.container import parse_file


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(threads=1)


@pytest.fixture(scope="module")
def data(codec: Codec) -> bytes:
    return codec.encode(photo(128, 192), quality=50)


def test_any_beginning_of_a_file_is_a_picture(codec: Codec, data: bytes) -> None:
    before = -1.0
    for length in sorted({14, 15, 20, len(data) // 4, len(data) // 2, len(data) - 1}):
        with pytest.raises(BitstreamError):
            codec.decode(data[:length])
        image = codec.decode(data[:length], partial=True)
        about = info(data[:length], partial=True)
        assert image.size == (192, 128) and image.info["whole"] is about.whole is False
        assert about.known is not None
        assert before <= image.info["known"] == about.known < 1
        before = image.info["known"]
    assert before > 0.5


def test_a_whole_file_decodes_as_without_partial(codec: Codec, data: bytes) -> None:
    whole = codec.decode(data, partial=True)
    assert (whole.info["whole"], whole.info["known"]) == (True, 1.0)
    assert whole.tobytes() == codec.decode(data).tobytes()
    assert "known" not in codec.decode(data).info


def test_what_is_no_beginning_is_refused(codec: Codec, data: bytes) -> None:
    header = len(parse_file(data).header.pack()) + 2
    for length in range(header):
        with pytest.raises(BitstreamError, match=r"empty|truncated"):
            codec.decode(data[:length], partial=True)
    with pytest.raises(BitstreamError, match="no symbol has"):
        codec.decode(data[:header] + b"\xff" * 12, partial=True)
    with pytest.raises(BitstreamError, match="above the limit"):
        Codec(max_pixels=99).decode(data[:-5], partial=True)
    other = data[:5] + bytes(2) + data[7:-5]
    with pytest.raises(ModelMismatchError):
        codec.decode(other, partial=True)


def test_the_command_line_says_how_much_is_there(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cut.sprd").write_bytes(data[: len(data) // 2])
    assert main(["decode", "cut.sprd"]) == 1
    assert "damaged or truncated" in capsys.readouterr().err and not Path("cut.png").exists()
    assert main(["info", "cut.sprd"]) == 1
    capsys.readouterr()
    assert main(["decode", "--partial", "cut.sprd"]) == 0
    text = capsys.readouterr().err
    with Image.open("cut.png") as image:
        about = json.loads(image.text["sprdiff"])  # type: ignore[attr-defined]
    assert about["whole"] is False and 0 < about["known"] < 1
    assert (
        text
        == f"sprdiff: warning: cut.sprd: cut off or damaged, it holds {about['known']:.1%} of the symbols\n"
    )
    assert main(["info", "--partial", "cut.sprd"]) == 0
    assert f"{about['known']:.1%}" in capsys.readouterr().out
    assert main(["info", "--json", "--partial", "cut.sprd"]) == 0
    assert json.loads(capsys.readouterr().out)["known"] == about["known"]


def test_a_whole_file_says_nothing_of_it(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("whole.sprd").write_bytes(data)
    assert main(["decode", "--partial", "whole.sprd"]) == 0 and main(["info", "whole.sprd"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "cut off" not in captured.out
