"""Tests that another processor makes the same integers and bytes: the exact part on 64-bit Arm, emulated by
qemu.

Needs Debian's qemu-user-static, apt-get and pip with their mirrors: an arm64 Python of Debian and numpy's
wheel for it are unpacked into a folder; nothing of them is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import exact_case
from bitstream_helpers import GOLDEN

QEMU = "qemu-aarch64-static"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
SOURCE = Path(exact_case.__file__).parents[2]


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with an arm64 system's Python, and numpy in ``site``."""
    assert shutil.which(QEMU), f"no {QEMU}: try apt-get install qemu-user-static"
    folder = tmp_path_factory.mktemp("arm")
    for name in ("state/lists/partial", "cache/archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    run(*apt, "update")
    run(*apt, "install", "--download-only", "--yes", "--no-install-recommends", *PACKAGES)
    for package in (folder / "cache" / "archives").glob("*.deb"):
        run("dpkg-deb", "-x", package, folder / "root")
    platforms = [f"--platform=manylinux{kind}_aarch64" for kind in ("_2_28", "_2_17", "2014")]
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        *platforms,
        "--python-version=3.11",
        "--implementation=cp",
        "--target",
        folder / "root" / "site",
        "numpy",
    )
    return folder / "root"


@pytest.mark.services
def test_arm_makes_the_same_integers_and_bytes(arm: Path) -> None:
    paths = ":".join(map(str, (arm / "site", SOURCE / "src", SOURCE / "tests", Path(__file__).parent)))
    python = arm / "usr" / "bin" / "python3.11"
    script = Path(exact_case.__file__)
    found = json.loads(run(QEMU, "-L", arm, python, script, PYTHONPATH=paths, PYTHONDONTWRITEBYTECODE="1"))
    assert (found["machine"], found["coder"]) == ("aarch64", "sprdiff.format.pure")
    assert found["results"] == exact_case.results()


def test_the_case_covers_all_golden_files_and_the_shipped_weights() -> None:
    found = exact_case.results()
    names = [path.stem for path in GOLDEN.glob("*.sprd")]
    assert {*names, "shipped", "checkerboard, encoded"} <= set(found)
    assert all(len(bytes.fromhex(value)) >= 20 for value in found.values())
