"""Tests that the benchmarks run on any photographs, and that their rules catch what breaks them."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmark_helpers import FOLDER, script
from conftest import photo
from sprdiff import Codec
from sprdiff.runtime.weights import read_manifest

pytest_plugins = ("weights_fixture",)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let benchmarks import the modules beside them."""
    monkeypatch.syspath_prepend(FOLDER)


def run(name: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments, "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    Image.fromarray(photo(176, 208)).save(tmp_path / "one.png")
    (tmp_path / "notes.txt").write_text("no photograph")
    return tmp_path


def test_dials(photos: Path) -> None:
    done = run("dials", str(photos), "--bpp", "0.05")
    assert done.returncode in (0, 1) and not done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 11 + 1 + 5
    assert ("one.png: " in done.stdout) == (done.returncode == 1)


def test_scale(photos: Path) -> None:
    done = run("scale", str(photos), "--bpp", "0.0001,0.03")
    assert done.returncode == 0 and not done.stderr
    assert "| 0.0001 | none can be so small |" in done.stdout and "| 0.03 | 1: 1 |" in done.stdout


def test_prefixes(photos: Path) -> None:
    done = run("prefixes", str(photos), "--bpp", "0.05")
    assert done.returncode == 0 and not done.stderr
    parts = [line.split(" | ")[:2] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [part for part, _ in parts] == ["| 25%", "| 50%", "| 75%", "| 90%", "| 100%"]
    assert parts[-1][1] == "100%"


def test_checkpoints(photos: Path, nano_weights: Path) -> None:
    options = (
        "--preset",
        "nano",
        "--init",
        str(nano_weights),
        "--steps",
        "1,2",
        "--bpp",
        "0.2",
        "--out",
        "shown",
        "--worse",
        str(nano_weights),
        "--guide",
        "1",
    )
    done = run("checkpoints", str(photos), *options, cwd=photos)
    assert done.returncode == 0 and not done.stderr
    rows = {
        line.split(" | ")[0].removeprefix("| "): line
        for line in done.stdout.splitlines()
        if line.startswith("| ")
    }
    sampled = [f"{steps} steps{guided}" for steps in (1, 2) for guided in ("", ", guided 1")]
    kinds = ["coarse", "vae", *(f"{name}{dial}" for name in sampled for dial in ("", " @ 0.5"))]
    assert [name for name in rows if name[0] not in "|-"] == kinds
    for name in sampled:  # guided by itself, a flow changes nothing but by rounding
        plain = rows[name.removesuffix(", guided 1")].split(" | ")[1]
        assert abs(float(rows[name].split(" | ")[1]) - float(plain)) < 0.02
    assert len(list((photos / "shown").iterdir())) == len(kinds)


def test_links(photos: Path) -> None:
    done = run("links", str(photos), "--packets", "4", "--payload", "300", "--trials", "50")
    assert done.returncode == 0 and not done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 3 * 11
    assert all("| 100% | 0% | 0% |" in row for row in rows[:3])


@pytest.mark.usefixtures("beside")
def test_simulated_losses_are_as_many_as_asked_for() -> None:
    links = script("links")
    for rate in (0.05, 0.4):
        for bursty in (False, True):
            arrive = links.lossy(rate, 8, 20000, bursty=bursty)
            assert abs(1 - arrive.mean() - rate) < 0.01
            pairs = float((~arrive[:, 1:] & ~arrive[:, :-1]).mean() / (1 - arrive.mean()))
            assert abs(pairs - (1 - 1 / links.BURST if bursty else rate)) < 0.03


@pytest.mark.parametrize("name", ["dials", "scale", "prefixes", "links"])
def test_no_photographs(name: str, tmp_path: Path) -> None:
    done = run(name, str(tmp_path))
    assert done.returncode == 1 and done.stderr.startswith("there are no photographs in ")


@pytest.mark.parametrize("name", ["dials", "scale", "effort", "prefixes", "links"])
def test_what_is_no_photograph_ends_with_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"no picture")
    done = run(name, str(tmp_path))
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"{name}.py: ") and done.stderr.count("\n") == 1


@pytest.mark.usefixtures("beside")
def test_the_rules_of_the_dials() -> None:
    dials = script("dials")
    assert dials.falls((0, 10, 20), (1.0, 1.0, 2.0)) == [10] and dials.falls(
        (0, 10, 20), (1.0, 2.0, 1.9)
    ) == [20]
    assert dials.rises((0, 0.5, 1), (25.0, 25.04, 25.1), 0.05) == [1] and not dials.rises(
        (0, 1), (2.0, 2.0), 0.0
    )


@pytest.mark.usefixtures("beside")
def test_what_the_picked_scale_loses() -> None:
    scale = script("scale")
    first = (1.0, {1.0: (25.0, 0.80), 1.5: (25.3, 0.79)})
    second = (1.5, {1.0: (25.0, 0.80), 1.5: (25.2, 0.81)})
    row = scale.line(0.01, [first, second, (math.nan, {})])
    assert row == "| 0.01 | 1: 1, 1.5: 1 | 1.5: 2 | 1: 1, 1.5: 1 | 0.150 | 0.0000 | 0.30 |"


def test_speed_of_each_part(photos: Path) -> None:
    done = run("speed", "--parts", "--image", str(photos / "one.png"))
    assert (done.returncode, done.stderr) == (0, "")
    parts = {line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")}
    assert {"graph encoder", "entropy decoder", "encode", "decode, realism 0", "decode, default"} <= parts


class Grey:
    """A network that judges pictures by how far their means are from each other."""

    def feature_distance(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        return 1 + abs(float(a.mean()) - float(b.mean()))

    def patch_features(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.zeros((1, 4)) + image.mean()


@pytest.mark.usefixtures("beside")
def test_the_default_dial_is_written(
    photos: Path, nano_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial, folder = script("default_dial"), tmp_path / "weights"
    shutil.copytree(nano_weights, folder)
    monkeypatch.setattr(dial.FeatureNetwork, "load", lambda path: Grey())
    options = ["--features", "none", "--rates", "0.1,0.3", "--steps", "1,2", "--count", "1"]
    monkeypatch.setattr(sys, "argv", ["default_dial.py", str(folder), str(photos), *options])
    before = read_manifest(folder)
    dial.main()
    assert read_manifest(folder) == before, "nothing is written unless asked for"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--write"])
    dial.main()
    after = read_manifest(folder)
    assert after.steps in (1, 2) and len(after.realism) == 256 and after != before
    assert replace(after, realism=before.realism, steps=before.steps) == before
    Codec(folder, threads=1).encode(photos / "one.png", quality=50)


@pytest.mark.usefixtures("beside")
def test_the_choice_of_the_default_dial() -> None:
    dial = script("default_dial")

    def means(psnr: float, ms_ssim: float, features: float, frechet: float) -> dict[str, float]:
        return {"psnr": psnr, "ms_ssim": ms_ssim, "feature_distance": features, "frechet": frechet}

    found = {
        0.0: means(25, 0.80, 4, 1000),
        0.4: means(24.5, 0.79, 3, 800),
        0.8: means(23.9, 0.781, 3, 700),
        0.9: means(23.7, 0.79, 2, 500),  # too far from x̃ in PSNR
        1.0: means(24.0, 0.77, 2, 500),  # too far from x̃ in MS-SSIM
    }
    assert dial.best(found) == 0.8
    assert dial.score(found[0.8], found[0.0]) == pytest.approx((0.75 + 0.7) / 2)
    choices = [
        dial.Choice(100.0, {1: 0.5, 2: 0.6, 4: 0.7}, {1: 0.82, 2: 0.802, 4: 0.8}),
        dial.Choice(140.0, {1: 0.5, 2: 0.8, 4: 0.7}, {1: 0.82, 2: 0.802, 4: 0.8}),
    ]
    assert dial.fewest(choices, (1, 2, 4)) == 2
    table = dial.by_level([(140.0, 0.8), (100.0, 0.6)])
    assert (table[0], table[100], table[120], table[140], table[255]) == (0.6, 0.6, 0.7, 0.8, 0.8)
