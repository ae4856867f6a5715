"""Tests of CREDITS.md, and of the script that makes it from the photographs' manifest."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from docs_rules import ROOT, load_script

credits_page = load_script("make_credits")

ROWS = [
    {"file": "a_n0.webp", "shard": "open-00.tar", "source repository": "b/b", "path": "x|y.jpg",
     "git blob": "0123456789abcdef", "licence": "CC BY 4.0", "credit": "A *star* (https://example.org/a_b)"},
    {"file": "a.webp", "shard": "valid-2mp.tar", "source repository": "b/b", "path": "x|y.jpg",
     "git blob": "0123456789abcdef", "licence": "CC BY 4.0", "credit": "A *star* (https://example.org/a_b)"},
    {"file": "c.webp", "shard": "valid-open.tar", "source repository": "a/a", "path": "c.jpg",
     "git blob": "fedcba9876543210", "licence": "CC0", "credit": ""},
]  # fmt: skip


def manifest(folder: Path, rows: list[dict[str, str]]) -> Path:
    with (folder / "MANIFEST.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder / "MANIFEST.csv"


def test_every_photograph_has_one_row(tmp_path: Path) -> None:
    out = tmp_path / "CREDITS.md"
    assert credits_page.main([str(manifest(tmp_path, ROWS[::-1])), "--out", str(out)]) == 0
    text = out.read_text("utf-8")
    training, validation = text.split("## Validation\n")
    assert "trained on 1 openly licensed photographs" in training
    row = r"| x\|y.jpg | CC BY 4.0 | A \*star\* (<https://example.org/a_b>) | `0123456789` |"
    assert row in training.splitlines() and "0123456789" not in validation
    assert "| c.jpg | CC0 |  | `fedcba9876` |" in validation.splitlines() and "fedcba9876" not in training


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([ROWS[0], {**ROWS[1], "licence": "CC0"}], "disagree"),
        ([{k: v for k, v in ROWS[0].items() if k != "licence"}], "lacks the columns licence"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    rows: list[dict[str, str]], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "CREDITS.md"
    assert credits_page.main([str(manifest(tmp_path, rows)), "--out", str(out)]) == 1
    assert complaint in capsys.readouterr().err and not out.exists()


def test_the_page_names_as_many_photographs_as_it_says() -> None:
    text = (ROOT / "CREDITS.md").read_text("utf-8")
    training, validation = text.split("## Validation\n")
    blobs = [re.findall(r"\| `([0-9a-f]{10})` \|$", part, re.MULTILINE) for part in (training, validation)]
    assert f"trained on {len(blobs[0])} openly licensed" in text
    assert f"Another {len(blobs[1])} photographs" in text
    assert len(set(blobs[0] + blobs[1])) == len(blobs[0]) + len(blobs[1]) > 800
