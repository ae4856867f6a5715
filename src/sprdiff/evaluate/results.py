"""The folder of one comparison: what was run, a row for each codec, image and target, and the files that
belong to them.

::

    DIR/run.json      what was run (`Run`): images, rates, codecs and metrics, versions, commands
    DIR/rows.jsonl    one `Row` on each line, appended as work is finished
    DIR/sets.jsonl    one `SetRow` on each line: figures of whole sets of images, written at the end of a run
    DIR/features/     features of patches, for the figures of sets
    DIR/images/, DIR/files/    with --keep: CODEC/TARGET/STEM.png and .bin, see `member`

An infinite figure (the PSNR of an identical image) is stored as null, because JSON has no infinity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct

from ..common.files import read_bytes, write_atomic
from ..common.structs import from_json, to_json
from ..errors import SprdiffError
from .targets import Target

RUN = "run.json"
ROWS = "rows.jsonl"
SETS = "sets.jsonl"
FORMAT = 1
"""The version of the folder's format; other versions are refused."""

Status = Literal["ok", "unreached", "failed"]
Key = tuple[str, str, Target]


class ResultsError(SprdiffError):
    """A folder of results cannot be used: it is something else, damaged, in use, or belongs to another
    comparison."""


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """One image through one codec at one target.

    Attributes:
        codec: its name as given to ``--codecs``.
        image: the file name.
        target_bpp: the target in bits per pixel; None: see `target_bytes`.
        status: ``ok``; ``unreached``: the codec's smallest file is larger; ``failed``: see `message`, and the
            next run tries again.
        message: one line of explanation; empty if ok.
        bytes: the size of the whole file (if unreached: of the smallest); None if failed or unknown.
        bpp: `bytes` in bits per pixel of the original.
        width, height: the size of the original in pixels.
        setting: the chosen setting, such as quality and factor; empty unless ok.
        version: the version of the codec.
        metrics: the figures by the name of the metric, in its unit; None if not finite; empty unless ok.
        encode_s, decode_s: seconds of processor time on one thread; None unless ok.
        peak_mb: the peak of resident memory during encoding and decoding in MB (10^6 bytes); None if unknown.
        target_bytes: the target in bytes; None: see `target_bpp`.
    """

    codec: str
    image: str
    target_bpp: float | None
    status: Status
    message: str
    bytes: int | None
    bpp: float | None
    width: int
    height: int
    setting: dict[str, str | int | float | bool | None]
    version: str
    metrics: dict[str, float | None]
    encode_s: float | None
    decode_s: float | None
    peak_mb: float | None
    target_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` unless there is exactly one target."""
        Target(self.target_bpp, self.target_bytes)

    @property
    def target(self) -> Target:
        """The target of the row."""
        return Target(self.target_bpp, self.target_bytes)

    @property
    def key(self) -> Key:
        """The key, which is unique among rows."""
        return self.codec, self.image, self.target


class SetRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The figures of all images of one codec at one target.

    Attributes:
        target_bpp, target_bytes: the target, as in `Row`.
        images: the number of images whose row is ok. If it is smaller than the run's, there are no figures,
            because those of different images are not comparable.
        patches: the number of patches behind each figure, by the name of the metric.
        metrics: the figures by the name of the metric; None: see `notes`.
        notes: why a figure is missing, by the name of the metric.
    """

    codec: str
    target_bpp: float | None
    images: int
    patches: dict[str, int]
    metrics: dict[str, float | None]
    notes: dict[str, str]
    target_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` unless there is exactly one target."""
        Target(self.target_bpp, self.target_bytes)

    @property
    def target(self) -> Target:
        """The target of the figures."""
        return Target(self.target_bpp, self.target_bytes)


class ImageInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """An original: its file name, its size in pixels, and the SHA-256 of the file."""

    name: str
    width: int
    height: int
    sha256: str


class MetricInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A metric (`metrics.catalogue`) and what it was computed with.

    Attributes:
        name: its key in `Row.metrics` or `SetRow.metrics`.
        title: its name for readers.
        unit: its unit, such as ``dB``; empty if it has none.
        direction: ``up`` if larger is better, else ``down``.
        source: the publication, the implementation and its version.
        scope: ``image`` if it belongs to rows, ``set`` if it belongs to sets.
        weights: the name and SHA-256 of its weights; None if it has none.
    """

    name: str
    title: str
    unit: str
    direction: Literal["up", "down"]
    source: str
    scope: Literal["image", "set"]
    weights: str | None


class Skipped(Struct, frozen=True, forbid_unknown_fields=True):
    """A codec or metric that is not available, and why."""

    name: str
    reason: str


class CodecInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A codec: its name and version."""

    name: str
    version: str


class Run(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"metrics": "rulers", "skipped_metrics": "skipped_rulers"},
):
    """What was run into a folder, over all runs.

    Attributes:
        format: `FORMAT`.
        sprdiff, python, platform, cpu: the versions and the machine of the latest run.
        folder: the absolute path of the originals.
        images, rates, codecs, metrics: those of all runs; rates in bits per pixel, ascending.
        skipped_codecs, skipped_metrics: those of the latest run.
        commands: the command lines, without repetitions.
        budgets: the targets in bytes of all runs, ascending.
    """

    format: int
    sprdiff: str
    python: str
    platform: str
    cpu: str
    folder: str
    images: list[ImageInfo]
    rates: list[float]
    codecs: list[CodecInfo]
    skipped_codecs: list[Skipped]
    metrics: list[MetricInfo]
    skipped_metrics: list[Skipped]
    commands: list[str]
    budgets: list[int] = []

    @property
    def targets(self) -> list[Target]:
        """The targets: first rates, then budgets."""
        return [*map(Target, self.rates), *(Target(bytes=budget) for budget in self.budgets)]


def member(folder: Path, kind: str, codec: str, target: Target, image: str, extension: str) -> Path:
    """Return the path of a file that belongs to a row: ``DIR/KIND/CODEC/TARGET/STEM.EXTENSION``.

    Args:
        folder: the folder of results.
        kind: ``images``, ``files`` or ``features``.
        codec: its name. A character that is no letter, digit or one of ``_.-~@=+,`` becomes %XX, so that a
            path in it makes no folders.
        target: the target, which names a folder.
        image: the file name, whose extension is dropped.
        extension: the extension with its dot.
    """
    return folder / kind / quote(codec, safe="@=+,") / target.folder / (Path(image).stem + extension)


def read_run(folder: Path) -> Run:
    """Read ``run.json`` in a folder of results.

    Raises:
        ResultsError: the file is missing, damaged, or of another format.
    """
    path = folder / RUN
    data = read_bytes(path, ResultsError)
    damaged = f"{path} is damaged"
    if from_json(data, dict[str, Any], ResultsError, damaged).get("format") != FORMAT:
        raise ResultsError(f"{path} is no results file of format {FORMAT}")
    return from_json(data, Run, ResultsError, damaged)


def read_rows(folder: Path) -> list[Row]:
    """Read all rows of a folder of results; a last line that was cut off is ignored.

    Raises:
        ResultsError: a line is no row, or two rows have the same key.
    """
    return [row for row, _ in numbered_rows(folder)[0]]


def numbered_rows(folder: Path) -> tuple[list[tuple[Row, bytes]], int]:
    """Read all rows with their lines, and the number of bytes of a last line that was cut off (0 if none
    was).

    Raises:
        ResultsError: a line is no row, or two rows have the same key.
    """
    path = folder / ROWS
    content = read_bytes(path, ResultsError) if path.exists() else b""
    *lines, rest = content.split(b"\n")
    rows = [
        from_json(line, Row, ResultsError, f"{path} line {n} is damaged") for n, line in enumerate(lines, 1)
    ]
    seen: dict[Key, int] = {}
    for n, row in enumerate(rows, 1):
        if row.key in seen:
            raise ResultsError(f"{path} line {n} repeats line {seen[row.key]}")
        seen[row.key] = n
    return list(zip(rows, lines, strict=True)), len(rest)


def read_sets(folder: Path) -> list[SetRow]:
    """Read the figures of sets of a folder of results; an empty list if no run has been finished.

    Raises:
        ResultsError: a line is damaged.
    """
    path = folder / SETS
    if not path.exists():
        return []
    lines = enumerate(read_bytes(path, ResultsError).splitlines(), 1)
    return [from_json(line, SetRow, ResultsError, f"{path} line {n} is damaged") for n, line in lines]


def write_run(folder: Path, run: Run) -> None:
    """Replace ``run.json``."""
    write_atomic(folder / RUN, to_json(run, indent=1), force=True)


def write_sets(folder: Path, sets: Iterable[SetRow]) -> None:
    """Replace ``sets.jsonl``."""
    write_atomic(folder / SETS, b"".join(map(to_json, sets)), force=True)


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Replace figures that are not finite by None, as rows store them."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
