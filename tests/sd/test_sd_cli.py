"""Tests of preset `sd` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from conftest import photo
from sd_helpers import write_trained_folder
from sprdiff.cli import main
from sprdiff.fileinfo import model_info
from sprdiff.sd.licences import LICENCES
from sprdiff.sd.runtime import TorchRuntime


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


def test_precision_is_an_option_of_encoding_and_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = str(write_trained_folder(tmp_path))
    source, coded, back = (str(tmp_path / name) for name in ("in.png", "a.sprd", "out.png"))
    Image.fromarray(photo(64, 64)).save(source)
    loaded = []
    real = TorchRuntime.__init__

    def recording(self: TorchRuntime, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        loaded.append((self.precision, self.model.denoiser.unet.dtype))

    monkeypatch.setattr(TorchRuntime, "__init__", recording)
    for command in (["encode", source, coded, "-q", "40"], ["decode", coded, back]):
        for precision in ("bf16", "auto"):
            assert main([*command, "-f", "--weights", weights, "--precision", precision]) == 0
        assert loaded == [("bf16", torch.bfloat16), ("fp32", torch.float32)]
        loaded.clear()
        capsys.readouterr()
        assert main([*command, "-f", "--weights", weights, "--precision", "fp8"]) == 2
        assert "must be auto or one of fp32, tf32, fp16, bf16, not fp8" in capsys.readouterr().err


def test_precision_is_not_for_tiny(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, coded = (str(tmp_path / name) for name in ("in.png", "a.sprd"))
    Image.fromarray(photo(64, 64)).save(source)
    assert main(["encode", source, coded, "--precision", "fp32", "--threads", "1"]) == 0
    capsys.readouterr()
    for command in (["encode", source, coded, "-f"], ["decode", coded, str(tmp_path / "out.png")]):
        assert main([*command, "--precision", "bf16", "--threads", "1"]) == 1
        wanted = "sprdiff: error: networks of preset tiny run in fp32, not in bf16\n"
        assert capsys.readouterr().err == wanted and not (tmp_path / "out.png").exists()
