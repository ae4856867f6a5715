"""Tests of weights for machines that only send."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from conftest import photo
from sprdiff.cli import main
from sprdiff.runtime.weights import default_folder

pytest_plugins = ("weights_fixture",)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(96, 128)).save("photo.png")


def test_the_encoder_alone_makes_the_same_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--encoder", "-o", "sender"]) == 0
    size = sum(path.stat().st_size for path in Path("sender").iterdir())
    whole = sum(path.stat().st_size for path in default_folder().iterdir())
    assert f"sender: {size / 1e6:.1f} MB" in capsys.readouterr().out and size < whole / 2
    assert "LICENSE-weights" in {path.name for path in Path("sender").iterdir()}
    assert main(["encode", "photo.png", "all.sprd"]) == 0
    assert main(["encode", "photo.png", "one.sprd", "--weights", "sender"]) == 0
    assert Path("one.sprd").read_bytes() == Path("all.sprd").read_bytes()
    assert main(["info", "one.sprd", "--weights", "sender"]) == 0


def test_an_encoder_of_bytes_is_copied_as_it_is(nano_weights: Path) -> None:
    """Its hash is in the manifest, and files say by which encoder they were made."""
    assert main(["export", "--encoder", "-o", "sender", "--weights", str(nano_weights)]) == 0
    assert Path("sender/encoder.npz").read_bytes() == (nano_weights / "encoder.npz").read_bytes()
    for folder, name in ((str(nano_weights), "all.sprd"), ("sender", "one.sprd")):
        assert main(["encode", "photo.png", name, "--weights", folder]) == 0
    assert Path("one.sprd").read_bytes() == Path("all.sprd").read_bytes()


def test_it_decodes_nothing_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--encoder", "-o", "sender", "--quiet"]) == 0
    assert main(["encode", "photo.png", "--quiet"]) == 0
    assert main(["decode", "photo.sprd", "out.png", "--weights", "sender"]) == 1
    captured = capsys.readouterr()
    assert (
        captured.err
        == "sprdiff: error: sender holds the encoder alone: it sends pictures, and decodes none\n"
    )
    assert captured.out == "" and not Path("out.png").exists()


def test_a_folder_is_replaced_only_when_asked_and_only_if_it_was_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["export", "-o", "sender"]) == 2
    assert main(["export", "--encoder", "-o", "sender"]) == 0
    Path("sender/encoder.npz").write_bytes(b"")
    assert main(["export", "--encoder", "-o", "sender"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["export", "--encoder", "-o", "sender", "-f"]) == 0
    assert Path("sender/encoder.npz").stat().st_size > 0
    Path("sender/diary.txt").write_text("mine")
    assert main(["export", "--encoder", "-o", "sender", "-f"]) == 1
    assert "other files" in capsys.readouterr().err and Path("sender/diary.txt").exists()
    assert main(["export", "--encoder", "-o", "sender", "--weights", "nowhere"]) == 1
    assert main(["export", "--encoder", "-o", "no/such/folder"]) == 1


def test_a_folder_that_lacks_its_decoder_is_still_incomplete(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the encoder's graph may be left: a folder that has lost one file is not such an export."""
    import shutil

    from sprdiff.runtime.weights import default_folder

    shutil.copytree(default_folder(), "damaged")
    Path("damaged/decoder.npz").unlink()
    assert main(["encode", "photo.png", "--weights", "damaged"]) == 1
    assert "decoder.npz cannot be read" in capsys.readouterr().err


def test_weights_without_such_an_encoder_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(default_folder(), "other", ignore=shutil.ignore_patterns("encoder.onnx"))
    assert main(["export", "--encoder", "-o", "sender", "--weights", "other"]) == 1
    wanted = "other has no encoder that could be copied alone: it lacks encoder.onnx\n"
    assert capsys.readouterr().err.endswith(wanted) and not Path("sender").exists()
