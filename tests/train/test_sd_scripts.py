"""Tests of the scripts of preset `sd`: the whole recipe on small parts, and the run on a machine with a GPU,
rehearsed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import small_sprdiff
from docs_rules import load_script
from sd_helpers import write_base, write_semantic
from sprdiff.train.sd.recipes import SD_STAGES
from training_helpers import SMALL_RUN, with_command, write_photos

ROOT = Path(__file__).parents[2]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment whose command ``sprdiff`` runs the sources under test on small parts, with few
    steps."""
    sources = os.pathsep.join(p for p in sys.path if p)
    own = {"PYTHONPATH": sources, "SMOKE": "2", "PACK": "--min-side 64", "PYTHONWARNINGS": ""}
    return with_command(folder, f'"{small_sprdiff.__file__}"', **own)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["refine", "joint"])
def test_the_recipe_begins_with_a_smoke_run_to_a_decoded_picture(last: str, tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    write_semantic(tmp_path / "semantic")
    photos, out = write_photos(tmp_path / "photos", 4, 96), tmp_path / "run"
    command = [
        "bash",
        "runs/sd.sh",
        "--data",
        str(photos),
        "--out",
        str(out),
        "--base",
        str(tmp_path / "base"),
        "--semantic",
        str(tmp_path / "semantic"),
        "--smoke-only",
        *(["--joint"] if last == "joint" else []),
        "--train",
        "--no-lpips",
        *SMALL_RUN,
        "--validate-crop",
        "64",
        "--workers",
        "1",
    ]
    env = environment(tmp_path)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    with (
        Image.open(out / "smoke" / "picture.png") as picture,
        Image.open(ROOT / "docs" / "demo.webp") as original,
    ):
        assert picture.size == original.size
    for stage in ("pixel", "codec", last):
        assert f"  {stage}" in done.stdout and (out / "smoke" / f"{stage}.safetensors").exists()
        assert f"{SD_STAGES[stage].steps} steps:" in done.stdout, "hours of the steps that the recipe has"
    assert not list(out.glob("*.safetensors")), "the stages themselves were not asked for"


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "--data is needed"), (["--colour", "red"], "unknown argument --colour")]
)
def test_wrong_arguments_of_the_recipe(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = ["bash", "runs/sd.sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2 and message in done.stderr


def test_the_run_on_a_gpu_rehearsed(tmp_path: Path) -> None:
    gpu_sd: Any = load_script("gpu_sd")
    given = [str(tmp_path), "--small", "--device", "cpu", "--steps", "1", "--batch", "2", "--crop", "64"]
    assert gpu_sd.main([*given, "--precisions", "bf16,fp32"]) == 0
    found = json.loads((tmp_path / "sd.json").read_text())
    assert all(share > 0.99 for share in found["exactness"].values()) and set(found["exactness"]) == {
        "fp32",
        "tf32",
    }
    errors = found["precision, rms error of z0"]
    assert errors["fp32"] == 0 and 0 < errors["fp16"] < errors["bf16"] < 0.1
    timed = [name for name, part in found.items() if isinstance(part, dict) and "seconds a step" in part]
    assert len(timed) == len(SD_STAGES) + 1 and all(found[name]["seconds a step"] > 0 for name in timed)
    assert all(found[name]["peak GiB"] > 0 and found[name]["steps skipped"] == 0 for name in timed)


def test_a_part_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_sd: Any = load_script("gpu_sd")

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA out\nof memory")

    monkeypatch.setattr(gpu_sd, "precision_errors", fail)
    monkeypatch.setattr(gpu_sd, "timed_steps", fail)
    assert gpu_sd.main([str(tmp_path), "--small", "--device", "cpu"]) == 1
    found = json.loads((tmp_path / "sd.json").read_text())
    assert found["codec, bf16"] == "failed: CUDA out of memory" and found["exactness"]["fp32"] > 0.99


def test_what_a_gpu_lacks_of_sd_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_pack: Any = load_script("gpu_pack")
    asked: list[str] = []

    def fetch(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.extend(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_pack.subprocess, "run", fetch)
    assert gpu_pack.main(["wheels", "sd", str(tmp_path)]) == 0
    assert asked[-len(gpu_pack.SD_PACKAGES) :] == list(gpu_pack.SD_PACKAGES)
    assert set(gpu_pack.PACKAGES) < set(asked) and any(name.startswith("diffusers==") for name in asked)
