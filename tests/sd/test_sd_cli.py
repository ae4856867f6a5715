"""Tests of preset `sd` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from conftest import photo
from sd_helpers import write_trained_folder
from sprdiff.cli import main
from sprdiff.fileinfo import model_info
from sprdiff.sd.licences import LICENCES


def test_models_lists_presets_parts_and_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert all(
        licence.model in text and licence.name in text and licence.link in text for licence in LICENCES
    )
    assert "preset tiny" in text and "preset sd" in text
    shipped = model_info()
    assert f"tiny-{shipped.tag}, decoder {shipped.decoder_hash[:16]}" in text
    assert main(["models", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["presets"]) == {"tiny", "sd"} and len(told["pretrained parts of sd"]) == len(LICENCES)


def test_files_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(write_trained_folder(tmp_path))
    source, coded, back = (str(tmp_path / name) for name in ("in.png", "a.sprd", "out.png"))
    Image.fromarray(photo(100, 150)).save(source)
    assert main(["encode", source, coded, "--weights", weights, "-q", "40"]) == 0
    assert main(["decode", coded, back, "--weights", weights]) == 0
    with Image.open(back) as picture:
        assert picture.size == (150, 100)
    capsys.readouterr()
    assert main(["info", coded, "--weights", weights, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["preset"] == "sd" and about["weights"] == "at hand"
    assert main(["info", "--weights", weights]) == 0
    assert f"sd-{about['tag']}" in capsys.readouterr().out
    assert main(["decode", coded, back, "-f"]) == 1
    wanted = capsys.readouterr().err
    assert f"made with the weights sd-{about['tag']}" in wanted and wanted.count("\n") == 1
    assert main(["decode", coded, back, "-f", "--weights", weights, "--steps", "4"]) == 1
    assert "evaluates its UNet once" in capsys.readouterr().err
