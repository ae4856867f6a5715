"""Runs the fuzzer at every door for a bounded time (`tests/fuzz.py`)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import attack_doors as doors
import fuzz

RUNS = {"stream": 150, "graph": 200, "parquet": 200}
PATIENCE = 900
TESTS = Path(__file__).parent


@pytest.mark.services
@pytest.mark.parametrize("door", sorted(doors.DOORS))
def test_any_bytes_end_in_a_sentence_or_in_one_line(door: str, tmp_path: Path) -> None:
    command = [sys.executable, str(TESTS / "fuzz.py"), door, str(RUNS.get(door, 1500))]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-4000:]
    if importlib.util.find_spec("atheris") is not None:
        assert "stat::number_of_executed_units" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.fixture
def broken_door() -> Iterator[str]:
    """A door behind which everything that does not begin with an A ends in an error that is not ours."""

    def broken(data: bytes) -> str:
        if not data.startswith(b"A"):
            raise KeyError("not ours")
        return "A"

    doors.DOORS["manifest"], sound = broken, doors.DOORS["manifest"]
    yield "manifest"
    doors.DOORS["manifest"] = sound


def test_without_atheris_it_finds_too(broken_door: str) -> None:
    with pytest.raises(KeyError, match="not ours"):
        fuzz.without(broken_door, 50, seed=1)


@pytest.mark.parametrize("door", ["manifest", "npz", "sprd"])
def test_without_atheris_all_is_well(door: str) -> None:
    fuzz.without(door, 20, seed=1)
