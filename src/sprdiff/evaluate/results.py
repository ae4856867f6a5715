"""The folder of one comparison: what was run, a row for each codec, image and rate, and what belongs to them.

::

    DIR/run.json      what was run, as `Run` has it: images, rates, codecs and metrics, versions, commands
    DIR/rows.jsonl    one `Row` on each line, appended as work is finished
    DIR/sets.jsonl    one `SetRow` on each line: figures of whole sets of images, written at the end of a run
    DIR/features/     patch features, for the figures of sets
    DIR/images/, DIR/files/    with --keep: CODEC/TARGET/STEM.png and .bin, see `member`

A figure that is infinite (PSNR of an identical image) is stored as null: JSON knows no infinity.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from ..common.files import read_bytes, write_atomic
from ..errors import SprdiffError
from .targets import Target

RUN = "run.json"
ROWS = "rows.jsonl"
SETS = "sets.jsonl"
FORMAT = 1
"""Of the folder; another one is refused."""

Status = Literal["ok", "unreached", "failed"]
Key = tuple[str, str, Target]
T = TypeVar("T")


class ResultsError(SprdiffError):
    """A folder of results cannot be used: it is another's, damaged, in use, or of another comparison."""


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """One image through one codec at one target.

    Attributes:
        codec: name as given to ``--codecs``.
        image: file name.
        target_bpp: what was asked for, in bits per pixel; None: see `target_bytes`.
        status: ``ok``; ``unreached``: the codec's smallest file is larger; ``failed``: see `message`, tried again
            by the next run.
        message: one line of explanation, empty when ok.
        bytes: size of the whole file (unreached: of the smallest); None when failed or unknown.
        bpp: `bytes` in bits per pixel of the original.
        width, height: of the original, in pixels.
        setting: what was chosen, such as quality and factor; empty unless ok.
        version: of the codec.
        metrics: figures by name of metric, in its unit; None where it is not finite; empty unless ok.
        encode_s, decode_s: seconds of processor time on one thread; None unless ok.
        peak_mb: most resident memory of encoding and decoding, in MB (10^6 bytes), or None where not known.
        target_bytes: what was asked for, in bytes; None: see `target_bpp`.
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
        """Raise `ValueError` unless there is one target."""
        Target(self.target_bpp, self.target_bytes)

    @property
    def target(self) -> Target:
        """What was asked for."""
        return Target(self.target_bpp, self.target_bytes)

    @property
    def key(self) -> Key:
        """What is unique among rows."""
        return self.codec, self.image, self.target


class SetRow(Struct, frozen=True, forbid_unknown_fields=True):
    """Figures of all images through one codec at one target.

    Attributes:
        target_bpp, target_bytes: as of `Row`.
        images: number of images with a row that is ok. Below the number in the run there are no figures: those of
            other images do not compare.
        patches: number of patches behind each figure, by name of metric.
        metrics: figures by name of metric; None: see `notes`.
        notes: why a figure is missing, by name of metric.
    """

    codec: str
    target_bpp: float | None
    images: int
    patches: dict[str, int]
    metrics: dict[str, float | None]
    notes: dict[str, str]
    target_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` unless there is one target."""
        Target(self.target_bpp, self.target_bytes)

    @property
    def target(self) -> Target:
        """What was asked for."""
        return Target(self.target_bpp, self.target_bytes)


class ImageInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """An original: file name, size in pixels, SHA-256 of the file."""

    name: str
    width: int
    height: int
    sha256: str


class MetricInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A metric as `metrics.Metric` has it, with what it was computed by.

    Attributes:
        name: key in `Row.metrics` or `SetRow.metrics`.
        title: for readers.
        unit: such as ``dB``; empty for none.
        direction: ``up``: larger is better.
        source: publication, implementation and its version.
        scope: ``image``: in rows; ``set``: in sets.
        weights: name and SHA-256 of the weights it was computed with; None for none.
    """

    name: str
    title: str
    unit: str
    direction: Literal["up", "down"]
    source: str
    scope: Literal["image", "set"]
    weights: str | None


class Skipped(Struct, frozen=True, forbid_unknown_fields=True):
    """A codec or metric that could not be had, and why."""

    name: str
    reason: str


class CodecInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """A codec: name and version."""

    name: str
    version: str


class Run(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"metrics": "rulers", "skipped_metrics": "skipped_rulers"},
):
    """What was run into a folder, over all runs into it.

    Attributes:
        format: `FORMAT`.
        sprdiff, python, platform, cpu: of the latest run.
        folder: absolute path of the originals.
        images, rates, codecs, metrics: of all runs; rates in bits per pixel, ascending.
        skipped_codecs, skipped_metrics: of the latest run.
        commands: command lines, without repetitions.
        budgets: of all runs, in bytes, ascending.
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
        """Rates, then budgets."""
        return [*map(Target, self.rates), *(Target(bytes=budget) for budget in self.budgets)]


def member(folder: Path, kind: str, codec: str, target: Target, image: str, extension: str) -> Path:
    """Path of a file that belongs to a row: ``DIR/KIND/CODEC/TARGET/STEM.EXTENSION``.

    Args:
        folder: of the results.
        kind: ``images``, ``files`` or ``features``.
        codec: its name; what is no letter, digit or one of ``_.-~@=+,`` becomes %XX, so that a path in it makes no
            folders.
        target: gives the folder its name.
        image: file name; its extension is left out.
        extension: with its dot.
    """
    return folder / kind / quote(codec, safe="@=+,") / target.folder / (Path(image).stem + extension)


def read_run(folder: Path) -> Run:
    """``run.json`` of a folder of results.

    Raises:
        ResultsError: the file is missing, damaged, or of another format.
    """
    path = folder / RUN
    data = read_bytes(path, ResultsError)
    if _read(data, dict[str, Any], str(path)).get("format") != FORMAT:
        raise ResultsError(f"{path} is no results file of format {FORMAT}")
    return _read(data, Run, str(path))


def read_rows(folder: Path) -> list[Row]:
    """All rows of a folder of results; a last line that a kill has cut is left out.

    Raises:
        ResultsError: a line is no row, or two are of the same codec, image and target.
    """
    return [row for row, _ in numbered_rows(folder)[0]]


def numbered_rows(folder: Path) -> tuple[list[tuple[Row, bytes]], int]:
    """Rows with their lines as stored, and how many bytes a cut last line has (0: none).

    Raises:
        ResultsError: as `read_rows`.
    """
    path = folder / ROWS
    content = read_bytes(path, ResultsError) if path.exists() else b""
    *lines, rest = content.split(b"\n")
    rows = [_read(line, Row, f"{path} line {n}") for n, line in enumerate(lines, 1)]
    seen: dict[Key, int] = {}
    for n, row in enumerate(rows, 1):
        if row.key in seen:
            raise ResultsError(f"{path} line {n} repeats line {seen[row.key]}")
        seen[row.key] = n
    return list(zip(rows, lines, strict=True)), len(rest)


def read_sets(folder: Path) -> list[SetRow]:
    """All figures of sets of a folder of results; none where no run has come to its end.

    Raises:
        ResultsError: a line is damaged.
    """
    path = folder / SETS
    if not path.exists():
        return []
    lines = enumerate(read_bytes(path, ResultsError).splitlines(), 1)
    return [_read(line, SetRow, f"{path} line {n}") for n, line in lines]


def to_line(row: Row | SetRow) -> bytes:
    """One line of JSON with its line break."""
    return json.dumps(msgspec.to_builtins(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_run(folder: Path, run: Run) -> None:
    """Replace ``run.json`` as a whole."""
    text = json.dumps(msgspec.to_builtins(run), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / RUN, text.encode(), force=True)


def write_sets(folder: Path, sets: Iterable[SetRow]) -> None:
    """Replace ``sets.jsonl`` as a whole."""
    write_atomic(folder / SETS, b"".join(map(to_line, sets)), force=True)


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as a row holds them: None for what is not finite."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _read(data: bytes, kind: type[T], where: str) -> T:
    """An object from JSON with every field checked: files may be edited by hand, and pages are made of them."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: the bytes are no text
        text = str(error).removeprefix("JSON is malformed: ")
        raise ResultsError(f"{where} is damaged: {text[:1].lower()}{text[1:]}") from error
