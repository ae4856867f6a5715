"""Tests that every attack file ends in a picture or in one line, within a gigabyte, and that none waits for
ever."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attack_doors as doors
from fuzz import damaged

MEGABYTES = 1024
PATIENCE = 300
"""The seconds after which something is taken to wait for ever."""
REFUSED = re.compile(r"((?:Unsupported|Large)?Image|Bitstream|Weights|Batch|Plugin)Error: [^\n]+")
HARMLESS = {
    "picture/ispe.avif": r"a picture of \(10, 10, 3\)",
    "sprd/noise.sprd": r"a picture of \(64, 64\)",
    "tar/rights.tar": "a shard of 0 pictures",
    "tar/controls.tar": "a shard of 2 pictures",  # refused ones
    "parquet/dictionary.parquet": "a table of 17 rows",
    "pipe/LICENSE-weights": "licence not stated",
}
FILES = [path for door in doors.DOORS for path in doors.corpus(door)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what became of each file, by name; a process of its own, whose memory is limited, has run
    them."""
    run = subprocess.run(
        [sys.executable, "attack_run.py", str(MEGABYTES), str(tmp_path_factory.mktemp("room"))],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        # Arrow's own allocator reserves a gigabyte of addresses, which the limit would count.
        env={**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    assert run.returncode == 0, run.stderr
    return dict(map(json.loads, run.stdout.splitlines()))


def test_each_ends_in_a_picture_or_in_one_line(results: dict[str, str]) -> None:
    wrong = {
        case: result
        for case, result in results.items()
        if not (re.fullmatch(HARMLESS[case], result) if case in HARMLESS else REFUSED.fullmatch(result))
    }
    assert wrong == {}
    assert HARMLESS.keys() <= results.keys()


def test_all_were_met(results: dict[str, str]) -> None:
    assert {f"{path.parent.name}/{path.name}" for path in FILES} <= results.keys()
    kinds = {case.partition("/")[0] for case in results}
    assert {"sparse", "pipe", "endless"} <= kinds and len(results) >= len(FILES) + 20


def test_each_has_a_line_that_says_what_it_was_meant_to_do() -> None:
    lines = re.findall(r"^\| (\S+/\S+) \| (.+) \|$", (doors.ATTACKS / "README.md").read_text("utf-8"), re.M)
    assert sorted(name for name, _ in lines) == sorted(f"{path.parent.name}/{path.name}" for path in FILES)
    assert all(path.stat().st_size < 200_000 for path in FILES)


@pytest.mark.parametrize("door", sorted(doors.DOORS))
@settings(max_examples=12)
@given(drawn=st.data())
def test_damaged_attacks_end_so_too(door: str, drawn: st.DataObject) -> None:
    """This does in short what the fuzzer does at length."""
    assert doors.met(doors.DOORS[door], drawn.draw(damaged(door)))
