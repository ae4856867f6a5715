"""Writes CREDITS.md: origin, licence and credit of every photograph that training saw.

    python scripts/make_credits.py MANIFEST.csv

MANIFEST.csv comes with the photographs and has a row for each picture that was made from one. Needed
are the columns ``shard``, ``source repository``, ``path``, ``git blob``, ``licence`` and ``credit``. The git
blob says which photograph it is.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sprdiff.common.files import write_atomic

PAGE = Path(__file__).resolve().parents[1] / "CREDITS.md"
COLUMNS = ("shard", "source repository", "path", "git blob", "licence", "credit")
TRAINING = "open-"
"""The shards whose names begin so are those that training sees; the others are for validation."""
HEAD = """\
# Credits of the photographs

<!-- Made by scripts/make_credits.py from the photographs' manifest. -->

The weights of `tiny` were trained on {trained} openly licensed photographs and no others.
Another {validated} photographs of the same sources served for validation.
We thank everyone who made these photographs and let others use them.
Licence and credit are given as the source states them; an empty credit means that it states none.
The last column is the beginning of the photograph's git blob, by which the repository finds it.
None of these photographs is part of this repository or of its packages.
"""


class Photograph(NamedTuple):
    """What is known of one photograph."""

    repository: str
    path: str
    blob: str
    licence: str
    credit: str
    trained: bool


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write CREDITS.md from the manifest of the photographs.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        with options.manifest.open(encoding="utf-8", newline="") as file:
            photographs = read(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        print(f"make_credits: {error}", file=sys.stderr)
        return 1
    write_atomic(options.out, page(photographs).encode(), force=True)
    return 0


def read(rows: csv.DictReader[str]) -> list[Photograph]:
    """Return the photographs of a manifest, each once, in the order of repository and path.

    Raises:
        ValueError: a column is missing, or two rows of a photograph disagree.
    """
    if missing := set(COLUMNS) - set(rows.fieldnames or ()):
        raise ValueError(f"the manifest lacks the columns {', '.join(sorted(missing))}")
    found: dict[str, Photograph] = {}
    for row in rows:
        shard, repository, path, blob, licence, credit = (row[column] or "" for column in COLUMNS)
        photograph = Photograph(repository, path, blob, licence, credit, shard.startswith(TRAINING))
        earlier = found.setdefault(photograph.blob, photograph)
        if earlier[2:5] != photograph[2:5]:
            raise ValueError(f"two rows of {photograph.path} disagree about its licence or credit")
        if photograph.trained and not earlier.trained:
            found[photograph.blob] = photograph
    return sorted(found.values())


def page(photographs: Iterable[Photograph]) -> str:
    """Return the page: a table for each repository, first those that training saw."""
    parts: dict[bool, dict[str, list[Photograph]]] = {True: defaultdict(list), False: defaultdict(list)}
    for photograph in photographs:
        parts[photograph.trained][photograph.repository].append(photograph)
    trained, validated = (sum(map(len, parts[kind].values())) for kind in (True, False))
    text = [HEAD.format(trained=trained, validated=validated)]
    for kind, title in ((True, "Training"), (False, "Validation")):
        text.append(f"## {title}\n")
        for repository, members in parts[kind].items():
            text.append(f"### {title}: [{repository}](https://github.com/{repository})\n")
            text.append("| photograph | licence | credit | blob |\n|---|---|---|---|")
            text.extend(line(member) for member in members)
            text.append("")
    return "\n".join(text).rstrip() + "\n"


def line(photograph: Photograph) -> str:
    """Return a photograph's row of a table."""
    cells = (photograph.path, photograph.licence, photograph.credit)
    return f"| {' | '.join(map(cell, cells))} | `{photograph.blob[:10]}` |"


def cell(text: str) -> str:
    """Return text as it stands in a cell of a Markdown table: on one line, without marks of its own."""
    plain = " ".join(text.split())
    # Addresses stay links; everything else that Markdown or HTML would read as a mark is escaped.
    pieces = re.split(r"(https?://[^\s()<>|]+)", plain)
    return "".join(
        f"<{piece}>" if index % 2 else re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", piece)
        for index, piece in enumerate(pieces)
    )


if __name__ == "__main__":
    sys.exit(main())
