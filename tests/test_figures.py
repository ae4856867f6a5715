"""Tests of figures that are given in several places: each has one source, and every quotation is that figure,
rounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import pytest

from sprdiff import cli
from sprdiff.models.stored import load_folder
from sprdiff.runtime.weights import default_folder

ROOT = Path(__file__).parents[1]
WEIGHTS = default_folder()
TEXTS = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.py"), *WEIGHTS.glob("*.md")]
)
PERFORMANCE = ROOT / "docs" / "performance.md"
QUOTES = {
    "README.md": (
        (r"encode ([\d.]+) s \(to a target", "encode 768x512, quality 50"),
        (r"to a target ([\d.]+) s\)", "encode 768x512, target 0.02 bpp"),
        (r"decode ([\d.]+) s; the whole", "decode 768x512, realism 1"),
        (r"the whole command ([\d.]+) s", "`sprdiff decode`, whole process"),
    ),
    "docs/quickstart.md": (
        (r"takes ([\d.]+) s to encode", "encode 768x512, quality 50"),
        (r"([\d.]+) s to decode", "decode 768x512, realism 1"),
        (r"its start included, takes ([\d.]+) s", "`sprdiff decode`, whole process"),
    ),
}
"""Where seconds are quoted, and the row of docs/performance.md that they are from."""
SECONDS = r"\b\d+\.\d+ s\b"


def rounds_to(source: Decimal, quoted: str) -> bool:
    """Whether a figure is the source with as many digits as it shows."""
    return source.quantize(Decimal(quoted), ROUND_HALF_UP) == Decimal(quoted)


def quoted(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield (file and text, figure) wherever a pattern with one group is found."""
    for path in TEXTS:
        for match in re.finditer(pattern, path.read_text("utf-8")):
            yield f"{path.name}: {match[0]}", match[1]


@cache
def millions() -> Decimal:
    """Return the parameters of the shipped networks in millions, those of EfficientNet-Lite0 included."""
    return Decimal(sum(p.numel() for p in load_folder(WEIGHTS).parameters())) / 10**6


@cache
def megabytes() -> Decimal:
    """Return the size of the folder of the shipped weights."""
    return Decimal(sum(path.stat().st_size for path in WEIGHTS.iterdir())) / 10**6


def seconds(task: str) -> Decimal:
    """Return the measured seconds of a row of docs/performance.md."""
    rows = [
        line.split("|")
        for line in PERFORMANCE.read_text("utf-8").splitlines()
        if line.startswith(f"| {task} |")
    ]
    assert len(rows) == 1, task
    return Decimal(rows[0][2].strip())


def test_parameters_of_the_shipped_networks() -> None:
    found = list(quoted(r"(\d+\.\d+) million parameters"))
    assert len(found) >= 4, "the command, its page, the architecture and the model card"
    assert [where for where, figure in found if not rounds_to(millions(), figure)] == []


def test_size_of_the_shipped_weights() -> None:
    files = list(quoted(r"million parameters(?:, | \| in the package, )([\d.]+) MB(?! as 2-byte)"))
    arrays = list(quoted(r"million parameters, ([\d.]+) MB as 2-byte numbers"))
    assert len(files) >= 2 and arrays
    assert [where for where, figure in files if not rounds_to(megabytes(), figure)] == []
    assert [where for where, figure in arrays if not rounds_to(2 * millions(), figure)] == []


def test_what_the_command_says_of_presets_stands_on_their_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    page = (ROOT / "docs" / "models.md").read_text("utf-8")
    figures = re.findall(
        r"[\d.]+ (?:million|billion) parameters|[\d.]+ million(?= \()|(?<=\()\d+ MB(?=\))", said
    )
    assert len(figures) == 4 and [figure for figure in figures if figure not in page] == []


@pytest.mark.parametrize("page", QUOTES)
def test_seconds_are_those_that_were_measured(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    covered = 0
    for pattern, task in QUOTES[page]:
        (figure,) = re.findall(pattern, text)
        assert rounds_to(seconds(task), figure), f"{figure} s for {task}, measured {seconds(task)}"
        covered += 1
    assert len(re.findall(SECONDS, text)) == covered, "seconds without a source"


def test_no_other_page_for_users_quotes_seconds_of_a_picture() -> None:
    for page in ("index.md", "models.md", "pillow.md", "cli.md"):
        assert re.findall(r"768x512[^|\n]*?" + SECONDS, (ROOT / "docs" / page).read_text("utf-8")) == [], page
