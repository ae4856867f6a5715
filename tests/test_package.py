"""Tests of what is released: the sdist and the wheel hold what they must and no more, and the wheel works
where nothing else is.

The environment that the wheel is installed into holds only what the package declares to need, linked from the
one that runs the tests: no package index is asked.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from conftest import photo

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sprdiff"
MAX_WHEEL = 80_000_000
WEIGHTS = {path.name for path in (SOURCE / "weights" / "tiny").iterdir()}
RUBBISH = re.compile(
    r"__pycache__|node_modules|\.py[co]$|\.(pytest|mypy|ruff)_cache|\.hypothesis|\.git/|\.part$|\.tmp$"
    r"|\.DS_Store|/site/"
)


def build(kind: str, source: Path, out: Path) -> Path:
    """Build an sdist or a wheel of a source tree, with the build backend that is installed here."""
    command = [
        sys.executable,
        "-m",
        "build",
        f"--{kind}",
        "--no-isolation",
        "--outdir",
        str(out),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, tuple[int, int]]:
    """Return (bytes, checksum) by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {member.filename: (member.file_size, member.CRC) for member in archive.infolist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(contents(wheel))
    # What lies in the source tree, apart from caches, is in the wheel, and no other file of the package.
    own = {p.relative_to(SOURCE.parent).as_posix() for p in SOURCE.rglob("*") if p.is_file()}
    assert {n for n in names if n.startswith("sprdiff/")} == {n for n in own if not RUBBISH.search(n)}
    others = {name.split("/")[0] for name in names if not name.startswith("sprdiff/")}
    assert all(re.fullmatch(r"sprdiff-[\w.]+\.(dist-info|data)", name) for name in others), others
    assert not [name for name in names if RUBBISH.search(name) or re.search(r"(^|/)tests?[/_]", name)]
    assert "py3-none-any" in wheel.name and wheel.stat().st_size < MAX_WHEEL


def test_the_wheel_holds_what_is_easily_forgotten(wheel: Path) -> None:
    names = contents(wheel)
    assert {"manifest.json", "LICENSE-weights", "MODEL_CARD.md", "decoder.npz"} <= WEIGHTS
    assert {f"sprdiff/weights/tiny/{name}" for name in WEIGHTS} <= names.keys()
    assert "sprdiff/py.typed" in names
    assert [name for name in names if name.startswith("sprdiff/serve/page/") and name.endswith(".html")]
    for ending in (
        ".dist-info/licenses/LICENSE",
        ".dist-info/licenses/NOTICE",
        ".dist-info/licenses/CREDITS.md",
        ".dist-info/entry_points.txt",
        ".data/data/share/mime/packages/sprdiff.xml",
        ".data/data/share/thumbnailers/sprdiff.thumbnailer",
    ):
        assert [name for name in names if name.endswith(ending) and names[name][0]], ending


def test_the_wheel_names_the_licences_of_all_it_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
        notice = archive.read(name.replace("METADATA", "licenses/NOTICE")).decode()
    assert "License-Expression: Apache-2.0 AND CC-BY-SA-4.0 AND MIT\n" in metadata
    assert "onnxruntime-web" in notice and "Copyright (c) Microsoft Corporation" in notice


def test_the_sdist_makes_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    assert contents(build("wheel", tree, tmp_path / "out")) == contents(wheel)


def test_the_sdist_holds_what_a_contributor_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CITATION.cff",
        "SECURITY.md",
        "LICENSE",
        "Makefile",
        "mkdocs.yml",
        "docs/index.md",
        "docs/demo.webp",
        "tests/conftest.py",
        "scripts/make_cli_docs.py",
        "runs/tiny.sh",
        "Containerfile",
        "benchmarks/speed.py",
        "web/package-lock.json",
        "web/src/worker.ts",
        "share/mime/packages/sprdiff.xml",
    ):
        assert needed in names, needed
    assert not [name for name in names if RUBBISH.search(name)]


def needed(requirement: str, done: set[str]) -> Iterator[importlib.metadata.Distribution]:
    """Return the installed package that a requirement names, and what it needs itself."""
    wanted = Requirement(requirement)
    extras = wanted.extras or {""}
    if wanted.name in done or not (
        wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in extras)
    ):
        return
    done.add(wanted.name)
    found = importlib.metadata.distribution(wanted.name)
    assert wanted.specifier.contains(found.version, prereleases=True), requirement
    yield found
    for further in found.requires or ():
        if "extra ==" not in further:
            yield from needed(further, done)


def link(distribution: importlib.metadata.Distribution, folder: Path) -> None:
    """Put an installed package into another environment, by links to its top folders and files."""
    for name in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
        there = Path(str(distribution.locate_file(name)))
        if there.exists() and not (folder / name).exists():
            (folder / name).symlink_to(there)


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a virtual environment with the wheel, what it declares to need, and nothing else; return its bin
    folder."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run([*install, *options, str(wheel)], capture_output=True, text=True, env=clean())
    assert done.returncode == 0, done.stdout + done.stderr
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    seen: set[str] = set()
    for requirement in declared:
        for distribution in needed(requirement, seen):
            link(distribution, packages)
    return folder / "bin"


def clean() -> dict[str, str]:
    """Return the environment variables without those that lead to the source tree."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SPRDIFF", "VIRTUAL"))
    }


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_wheel_encodes_and_decodes(environment: Path, tmp_path: Path) -> None:
    where = run(environment / "python", "-c", "import sprdiff; print(sprdiff.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(environment.parent), "the package does not come from the wheel"
    Image.fromarray(photo(120, 200)).save(tmp_path / "photo.jpg")
    run(environment / "sprdiff", "encode", "photo.jpg", "--max-bytes", "200", cwd=tmp_path)
    run(environment / "sprdiff", "decode", "photo.sprd", cwd=tmp_path)
    assert (tmp_path / "photo.sprd").stat().st_size <= 200
    with Image.open(tmp_path / "photo.png") as picture:
        assert picture.size == (200, 120)


def test_the_installed_wheel_says_what_it_is(environment: Path, tmp_path: Path) -> None:
    text = run(environment / "sprdiff", "info", cwd=tmp_path)
    assert "tiny" in text and "CC BY-SA 4.0" in text and str(environment.parent) in text
    version = run(environment / "sprdiff", "--version", cwd=tmp_path).split()[-1]
    assert version in next(environment.parent.glob("lib/python*/site-packages/sprdiff-*.dist-info")).name


def test_the_shared_files_are_where_a_desktop_looks(environment: Path) -> None:
    for name in ("mime/packages/sprdiff.xml", "thumbnailers/sprdiff.thumbnailer"):
        assert (environment.parent / "share" / name).is_file()


def test_commands_that_need_an_extra_say_so(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment / "sprdiff", "train", "pixel", "--out", "x"],
        cwd=tmp_path,
        env=clean(),
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and "pip install 'sprdiff[train]'" in done.stderr
        and "Traceback" not in done.stderr
    )
