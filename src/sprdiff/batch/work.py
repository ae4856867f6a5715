"""What is done with one file of a collection, on this machine or another."""

from __future__ import annotations

import functools
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..common.messages import explain
from ..common.remote import as_path, fetch, is_remote
from ..errors import BatchError, ImageError, OutputError, OutputExistsError, WeightsError
from .collection import PICTURES, SHARDS, Item
from .manifest import ManifestRow
from .parquet import ParquetTable
from .progress import Progress
from .recode import Work, codec
from .shards import TarShard
from .storage import Stamp, digest, make_folder, place, read, stat

DIED = "its process died: out of memory, or crashed in a library"


@dataclass(frozen=True)
class RunOptions:
    """What a run does with each file.

    Attributes:
        kind: of the files, one of `collection.KINDS`.
        force: overwrite outputs that exist.
        staging: the folder in which local outputs are made, on the disk of the destination. What a killed
            process leaves is there and not among the outputs. None if the destination is remote.
        column, output_column: of the pictures in Parquet, before and after.
    """

    kind: str
    work: Work
    force: bool = False
    staging: Path | None = None
    column: str | None = None
    output_column: str | None = None


@dataclass(frozen=True)
class InputPicture:
    """One picture.

    Attributes:
        number: its place in its file, from 0.
        source, target: its labels in the manifest.
        data: its bytes, or why they are not read.
    """

    number: int
    source: str
    target: str
    data: bytes | ImageError


@dataclass(frozen=True)
class Result:
    """What has become of one file.

    Attributes:
        rows: of its pictures; of a file that failed as a whole, one row.
        source, output: what tells their present versions from others; None if there is no output.
    """

    rows: Sequence[ManifestRow]
    source: Stamp | None = None
    output: Stamp | None = None

    @property
    def failed(self) -> int:
        """How many pictures have failed."""
        return sum(bool(row.error) for row in self.rows)

    def to_json(self) -> str:
        """Return the result as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Return the result that `to_json` has written."""
        about = json.loads(text)
        source, output = (about[name] and Stamp(**about[name]) for name in ("source", "output"))
        return cls([ManifestRow(**row) for row in about["rows"]], source, output)


Results = Generator[tuple[Item, Result], None, None]
Recoded = tuple[ManifestRow, bytes | None]
"""The row of a picture, and its output unless it has failed."""
Spread = Callable[[Callable[[InputPicture], Recoded], Iterable[InputPicture]], Iterable[Recoded]]
"""Applies a function to pictures and keeps their order."""


class SinglePicture:
    """A file that is one picture, with the methods of a container."""

    count = 1

    def __init__(self, data: bytes) -> None:
        self._data = data

    def pictures(self) -> Iterator[tuple[str, str, bytes | ImageError]]:
        """Yield the picture; it has no label inside its file."""
        yield "", "", self._data

    def write(self, outputs: Iterator[bytes | None], out: Path) -> None:
        """Write the output, unless the picture has failed."""
        if (output := next(outputs)) is not None:
            out.write_bytes(output)


Container = SinglePicture | TarShard | ParquetTable


def failure(item: Item, error: str) -> Result:
    """Return the result of a file that failed as a whole."""
    return Result([ManifestRow(item.source, item.target, item.size, error=error)])


def do_item(
    options: RunOptions,
    item: Item,
    local: Callable[[], Path] | None = None,
    spread: Spread = map,
    progress: Progress | None = None,
) -> Result:
    """Read a file, work on its pictures, and write its output.

    Args:
        local: returns the path of a container on this machine; None: a remote one is fetched.
        spread: applies a function to the pictures; without it they are worked on here, one after the other.

    Raises:
        WeightsError: the networks cannot be loaded, so no picture can be worked on.
    """
    rows, progress = list[ManifestRow](), progress or Progress()

    def outputs(pictures: Iterable[InputPicture]) -> Generator[bytes | None]:
        for row, output in spread(functools.partial(recode, options.work), pictures):
            rows.append(row)
            progress.advanced(1, bool(row.error))
            yield output

    try:
        if not item.target:
            raise OutputError("its name leads out of the folder")
        source = Stamp(item.size, item.time) if item.time else stat(item.source) or Stamp()
        with scratch(options.staging) as folder:
            container, sha256 = _open(options, item, local or functools.partial(local_copy, item, folder))
            progress.opened(container.count)
            out = folder / "output"
            with closing(outputs(_pictures(item, container))) as made:
                container.write(made, out)
            output = _store(options, item, out) if out.exists() else None
        return Result(rows, replace(source, sha256=sha256), output)
    except WeightsError:
        raise
    except Exception as error:  # whatever a library makes of an odd file: this one fails, the others go on
        progress.advanced(0, 1)
        return failure(item, explain(error))


def local_copy(item: Item, folder: Path) -> Path:
    """Return the path of a container; a remote one is fetched into the folder.

    Raises:
        BatchError: it cannot be fetched.
    """
    if not is_remote(item.source):
        return as_path(item.source)
    path = folder / hashlib.sha256(item.source.encode()).hexdigest()
    fetch(item.source, path, BatchError)
    return path


def recode(work: Work, picture: InputPicture) -> Recoded:
    """Encode or decode one picture.

    Raises:
        WeightsError: the networks cannot be loaded, so no picture can be worked on.
    """
    source, target, data = picture.source, picture.target, picture.data
    if isinstance(data, ImageError):
        return ManifestRow(source, target, error=str(data)), None
    codec(work.weights, work.max_pixels).runtime  # noqa: B018 (loaded before the clock starts)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata
            made = work.make(data)
    except WeightsError:
        raise
    except Exception as error:
        return ManifestRow(source, target, len(data), error=explain(error)), None
    about = made.width, made.height, made.bpp, round(time.perf_counter() - start, 4), made.dropped
    return ManifestRow(source, target, len(data), len(made.data), *about), made.data


@contextmanager
def scratch(staging: Path | None) -> Iterator[Path]:
    """Make a folder for a while: in the staging folder, or where the system keeps temporary files."""
    if staging is not None:
        make_folder(staging)
    with TemporaryDirectory(prefix="sprdiff-", dir=staging) as name:
        yield Path(name)


def _open(options: RunOptions, item: Item, local: Callable[[], Path]) -> tuple[Container, str]:
    """Open the file of an item; return it with its SHA-256."""
    work = options.work
    if options.kind == PICTURES:
        data = read(item.source, work.most)
        return SinglePicture(data), hashlib.sha256(data).hexdigest()
    path = local()
    sha256 = digest(str(path))  # before anything else is read: a change from now on will be noticed
    if options.kind == SHARDS:
        return TarShard(path, work), sha256
    return ParquetTable(path, work, options.column, options.output_column), sha256


def _pictures(item: Item, container: Container) -> Iterator[InputPicture]:
    for number, (source, target, data) in enumerate(container.pictures()):
        yield InputPicture(number, item.source + source, item.target + target, data)


def _store(options: RunOptions, item: Item, out: Path) -> Stamp:
    """Give an output its place, unless a run that was stopped has left the same output there."""
    sha256, made = digest(str(out)), stat(str(out))
    try:
        place(out, item.target, force=options.force)
    except OutputExistsError:
        there = ""
        with suppress(BatchError):
            there = digest(item.target)
        if there == sha256:
            made = stat(item.target)
        elif item.own and there == item.own:
            place(out, item.target, force=True)
        else:
            raise  # the file belongs to somebody else
    if is_remote(item.target):
        made = stat(item.target)
    return replace(made or Stamp(), sha256=sha256)
