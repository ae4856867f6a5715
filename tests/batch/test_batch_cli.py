"""Tests of the command ``sprdiff batch``: its options, its bar, and what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batch_helpers import (
    outputs,
    png,
    run,
    write_table,
    write_tar,
    write_tree,
)
from sprdiff import cli
from sprdiff.cli.batch import ShownProgress
from sprdiff.common.terminal import ProgressBar


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "in", ["a.png", "b.PNG", "deep/er/c.png", "notes.txt", "deep/x"])


def test_the_command(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "broken.png").write_bytes(b"?")
    out = str(tmp_path / "out")
    assert cli.main(["batch", str(tree), out, "-q", "10", "-j", "1"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 4 pictures, 1 failed, ") and said.out.endswith("images/s)\n")
    passed, failed = said.err.splitlines()
    assert passed == "sprdiff: warning: passed over: 1 .txt, 1 without extension"
    assert failed.startswith(f"sprdiff: error: {tree}/broken.png: ")
    assert (
        cli.main(["batch", out, str(tmp_path / "back"), "--decode", "--to", "webp", "--quiet", "-j", "1"])
        == 0
    )
    assert capsys.readouterr().out == "" and (tmp_path / "back" / "deep" / "er" / "c.webp").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["-q", "101"],
        ["-q", "10", "--bpp", "0.1"],
        ["--realism", "1"],
        ["--to", "png"],
        ["--decode", "-q", "10"],
        ["--decode", "--to", "xyz"],
        ["--as", "movies"],
        ["-j", "0"],
    ],
)
def test_wrong_usage(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["batch", str(tmp_path), str(tmp_path / "out"), *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("package", ["pyarrow", "filelock", "ray"])
def test_a_missing_package_is_named(
    package: str,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    extra = "ray" if package == "ray" else "batch"
    given = ["--ray", "auto"] if package == "ray" else []
    assert cli.main(["batch", str(tree), str(tmp_path / "out"), *given]) == 1
    assert f"this needs {package}: pip install 'sprdiff[{extra}]'" in capsys.readouterr().err


def test_the_command_is_light() -> None:
    code = (
        "import sys, sprdiff.cli; sprdiff.cli.main(['batch', '--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--ray" in done.stdout
    assert not {"numpy", "PIL", "pyarrow", "fsspec", "ray", "onnxruntime"} & set(done.stderr.split())


class Bar(ProgressBar):
    """A progress bar that keeps what it is told to show."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, float | None, str]] = []

    def show(self, done: float, total: float | None = None, text: str = "") -> None:
        self.shown.append((done, total, text))


def test_the_bar() -> None:
    bar = Bar()
    progress = ShownProgress(bar)
    progress.begin(7, pictures=True)
    progress.advanced(1, 1)
    assert bar.shown == [(0, 7, ""), (1, 7, "1 failed")]
    bar = Bar()
    progress = ShownProgress(bar)
    progress.begin(4, pictures=False)
    assert bar.shown == [(0, None, "")]
    progress.opened(10)
    progress.opened(20)
    progress.advanced(16, 2)
    assert bar.shown[-1] == (16, 60, "2 failed"), "reckoned from those that have been opened"


def test_the_source_may_be_all_kinds(tmp_path: Path) -> None:
    """The names of the files tell the kind of a folder."""
    write_tar(tmp_path / "tars" / "a.tar", [("x.png", png(0))])
    write_table(tmp_path / "tables" / "a.parquet", [png(0)])
    for name, suffix in (("tars", "a.tar"), ("tables", "a.parquet")):
        run(tmp_path / name, tmp_path / "out" / name)
        assert set(outputs(tmp_path / "out" / name)) == {suffix}
