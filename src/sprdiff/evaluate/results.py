"""The folder of one comparison: what was run, a row for each codec, image and rate, and what belongs to them.

::

    DIR/run.json      what was run, as `Run` has it: images, rates, codecs and rulers, versions, commands
    DIR/rows.jsonl    one `Row` on each line, appended as work is finished
    DIR/sets.jsonl    one `SetRow` on each line: figures of whole sets of images, written at the end of a run
    DIR/features/     patch features, for the figures of sets
    DIR/images/, DIR/files/    with --keep: CODEC/TARGET/STEM.png and .bin, see `member`

A figure that is infinite (PSNR of an identical image) is stored as null: JSON knows no infinity.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

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


class _Asked:
    """What rows have in common: one target, stored as one of two numbers."""

    target_bpp: float | None
    target_bytes: int | None

    def __post_init__(self) -> None:
        """Raises ValueError unless there is one target."""
        Target(self.target_bpp, self.target_bytes)

    @property
    def target(self) -> Target:
        """What was asked for."""
        return Target(self.target_bpp, self.target_bytes)


@dataclass(frozen=True)
class Row(_Asked):
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
        metrics: figures by name of ruler, in its unit; None where it is not finite; empty unless ok.
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

    @property
    def key(self) -> Key:
        """What is unique among rows."""
        return self.codec, self.image, self.target


@dataclass(frozen=True)
class SetRow(_Asked):
    """Figures of all images through one codec at one target.

    Attributes:
        target_bpp, target_bytes: as of `Row`.
        images: number of images with a row that is ok. Below the number in the run there are no figures: those of
            other images do not compare.
        patches: number of patches behind each figure, by name of ruler.
        metrics: figures by name of ruler; None: see `notes`.
        notes: why a figure is missing, by name of ruler.
    """

    codec: str
    target_bpp: float | None
    images: int
    patches: dict[str, int]
    metrics: dict[str, float | None]
    notes: dict[str, str]
    target_bytes: int | None = None


@dataclass(frozen=True)
class ImageInfo:
    """An original: file name, size in pixels, SHA-256 of the file."""

    name: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class RulerInfo:
    """A metric as `rulers.Ruler` has it, with what it was computed by.

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


@dataclass(frozen=True)
class Skipped:
    """A codec or ruler that could not be had, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class CodecInfo:
    """A codec: name and version."""

    name: str
    version: str


@dataclass(frozen=True)
class Run:
    """What was run into a folder, over all runs into it.

    Attributes:
        format: `FORMAT`.
        sprdiff, python, platform, cpu: of the latest run.
        folder: absolute path of the originals.
        images, rates, codecs, rulers: of all runs; rates in bits per pixel, ascending.
        skipped_codecs, skipped_rulers: of the latest run.
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
    rulers: list[RulerInfo]
    skipped_rulers: list[Skipped]
    commands: list[str]
    budgets: list[int] = field(default_factory=list)

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
        ResultsError: there is none, or it is not one.
    """
    path = folder / RUN
    content = _parse(read_bytes(path, ResultsError), str(path))
    if isinstance(content, dict) and content.get("format") != FORMAT:
        raise ResultsError(f"{path} is no results file of format {FORMAT}")
    return _build(Run, content, str(path))


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
    rows = [_build(Row, _parse(line, f"{path} line {n}"), f"{path} line {n}") for n, line in enumerate(lines, 1)]
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
    return [_build(SetRow, _parse(line, f"{path} line {n}"), f"{path} line {n}") for n, line in lines]


def to_line(row: Row | SetRow) -> bytes:
    """One line of JSON with its line break."""
    return json.dumps(asdict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_run(folder: Path, run: Run) -> None:
    """Replace ``run.json`` as a whole."""
    text = json.dumps(asdict(run), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / RUN, text.encode(), force=True)


def write_sets(folder: Path, sets: Iterable[SetRow]) -> None:
    """Replace ``sets.jsonl`` as a whole."""
    write_atomic(folder / SETS, b"".join(map(to_line, sets)), force=True)


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as a row holds them: None for what is not finite."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:  # not UTF-8, or not JSON
        raise ResultsError(f"{where} is damaged: no JSON") from error


def _build(kind: type[T], content: Any, where: str) -> T:
    """A dataclass from JSON, every field checked: files may be edited by hand, and pages are made of them."""
    try:
        return typing.cast(T, _checked(kind, content, kind.__name__))
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{where} is damaged: {error}") from error


def _checked(kind: Any, value: Any, name: str) -> Any:
    """The value as the annotated type; TypeError if it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        types_of = typing.get_type_hints(kind)
        # What has a default came later: folders of earlier versions lack it.
        needed = {f.name for f in dataclasses.fields(kind) if f.default is MISSING and f.default_factory is MISSING}
        if not needed <= value.keys() <= types_of.keys():
            raise TypeError(f"{name} has other fields than {', '.join(types_of)}")
        return kind(**{field: _checked(types_of[field], item, field) for field, item in value.items()})  # type: ignore[operator]
    if origin is list and isinstance(value, list):
        return [_checked(arguments[0], item, name) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _checked(arguments[1], item, name) for key, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, value, name)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if isinstance(kind, type) and type(value) is kind and kind is not float:
        return value
    raise TypeError(f"{name} cannot be {json.dumps(value)[:40]}")


def _one_of(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    """The value as it is: JSON's own types are kept apart, so that a quality of 1 does not become 1.0."""
    exact = [kind for kind in kinds if type(value) is kind]
    for kind in exact or kinds:
        try:
            return _checked(kind, value, name)
        except TypeError:
            continue
    raise TypeError(f"{name} cannot be {json.dumps(value)[:40]}")
