"""What workers do, here or on another machine: a picture, a piece of a container, or a whole one."""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError, SprdiffError
from .outputs import place, write
from .recode import Row, Work, codec, explain
from .source import PICTURES, SHARDS, Unit
from .spool import Spool, records
from .stores import as_path, fetch, is_remote, read, size_of
from .tables import Rows, Table
from .tars import Members, Shard

DIED = "its process died: out of memory, or crashed in a library"


@dataclass(frozen=True)
class Job:
    """What a run does with each unit.

    Attributes:
        kind: of the units, see `source.KINDS`.
        force: overwrite outputs that exist.
        folder: for results of containers that are not finished, reached by all workers; None: there is none.
        staging: see `stores.write`.
        column, output_column: of Parquet.
    """

    kind: str
    work: Work
    force: bool = False
    folder: str | None = None
    staging: Path | None = None
    column: str | None = None
    output_column: str | None = None


@dataclass(frozen=True)
class Result:
    """What became of a unit.

    Attributes:
        lines: its rows, as JSON with line ends, in pieces of any size.
        pictures, failed: how many they are.
        again: it failed as a whole, which may be different another time.
    """

    lines: Iterable[bytes]
    pictures: int
    failed: int
    again: bool = False


@dataclass(frozen=True)
class Piece:
    """Consecutive pictures of a container, and where their results are gathered."""

    work: Work
    source: str
    target: str
    path: Path
    spool: Path
    content: Members | Rows


def do_picture(job: Job, unit: Unit) -> Row:
    """Read a picture, write what it becomes, and say how it went.

    Raises:
        WeightsError: no picture can be worked on.
    """
    try:
        if not unit.target:
            raise OutputError("its name leads out of the folder")
        source = read(unit.source, job.work.most)
        if not job.force and size_of(unit.target) is not None:
            return _found(job.work, unit, source)
    except Exception as error:
        return Row(unit.source, unit.target, error=explain(error))
    row, data = attempt(job.work, unit.source, unit.target, source)
    if data is not None:
        try:
            write(unit.target, data, staging=job.staging, force=job.force)
        except Exception as error:
            return Row(unit.source, unit.target, len(source), error=explain(error))
    return row


def do_piece(piece: Piece) -> tuple[int, int]:
    """Work on the pictures of a piece that have no result yet; (how many there are, how many of them failed).

    Raises:
        WeightsError: no picture can be worked on.
        BatchError: the container cannot be read.
        OSError: results cannot be stored.
    """
    with Spool(piece.spool) as spool:
        for data in piece.content.read(piece.path, spool.count):
            source, target = _labels(piece, spool.count)
            if isinstance(data, bytes):
                spool.append(*attempt(piece.work, source, target, data))
            else:
                spool.append(Row(source, target, error=str(data)), None)
        assert spool.count == len(piece.content)
        return spool.count, spool.failed


def blame(piece: Piece, error: str = DIED) -> None:
    """Note that the picture failed at which a worker has died: the one after the last result."""
    with Spool(piece.spool) as spool:
        if spool.count < len(piece.content):
            source, target = _labels(piece, spool.count)
            spool.append(Row(source, target, error=error), None)


def _blame_next(pieces: list[Piece]) -> None:
    for piece in pieces:
        if sum(1 for _ in records(piece.spool)) < len(piece.content):
            blame(piece)
            return


def pieces(job: Job, unit: Unit, path: Path, folder: Path) -> list[Piece]:
    """The pieces of a container, of which there is a local copy.

    Args:
        folder: for the results.

    Raises:
        BatchError: it cannot be read.
    """
    if not unit.target:
        raise OutputError("its name leads out of the folder")
    contents: Sequence[Members | Rows] = _open(job, path).pieces()
    return [
        Piece(job.work, unit.source, unit.target, path, folder / f"{number:06d}", content)
        for number, content in enumerate(contents)
    ]


def finish(job: Job, unit: Unit, path: Path, done: list[Piece], folder: Path) -> None:
    """Make the output of a container whose pieces are done, and give it its place.

    Raises:
        BatchError: the container cannot be read any more.
        OutputError: the output cannot be written.
        OSError: the system refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        out = Path(name) / "output"
        outputs = (data for piece in done for _, _, data in records(piece.spool))
        _open(job, path).assemble(outputs, out)
        place(out, unit.target, staging=job.staging, force=job.force)


def rows(done: list[Piece]) -> Iterator[bytes]:
    """The rows of a container, as lines of JSON."""
    for piece in done:
        for header, _, _ in records(piece.spool):
            yield header[header.index(b"} ") + 2 :]


def do_container(job: Job, unit: Unit, *, blamed: bool = False) -> Result:
    """A whole container by one worker; what is done is kept in the job's folder, if it has one.

    Args:
        blamed: the picture that comes next is what earlier workers have died of.

    Raises:
        WeightsError: no picture can be worked on.
    """
    with tempfile.TemporaryDirectory(prefix="sprdiff-") as name:
        folder = Path(name) if job.folder is None else Path(job.folder) / str(unit.n)
        try:
            path = local_copy(unit, Path(name) / "source")
            done = pieces(job, unit, path, folder)
            if blamed:
                _blame_next(done)
            counts = [do_piece(piece) for piece in done]
            finish(job, unit, path, done, folder)
        except Exception as error:
            return failure(unit, explain(error))
        result = Result([b"".join(rows(done))], sum(n for n, _ in counts), sum(failed for _, failed in counts))
    return result


def result_of(row: Row) -> Result:
    """A unit that is one picture."""
    return Result([row.line()], 1, int(bool(row.error)), again=bool(row.error))


def failure(unit: Unit, error: str) -> Result:
    """A unit that failed as a whole."""
    return result_of(Row(unit.source, unit.target, unit.size, error=error))


def local_copy(unit: Unit, path: Path) -> Path:
    """Where a container can be read: a copy at `path`, if it is remote.

    Raises:
        BatchError: it cannot be fetched.
    """
    if not is_remote(unit.source):
        return as_path(unit.source)
    path.parent.mkdir(parents=True, exist_ok=True)
    fetch(unit.source, path)
    return path


def attempt(work: Work, source: str, target: str, data: bytes) -> tuple[Row, bytes | None]:
    """The row of a picture, and its output unless it failed.

    Raises:
        WeightsError: no picture can be worked on.
    """
    codec(work.weights, work.max_pixels).runtime  # noqa: B018 (loaded before the clock runs)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow mutters about odd metadata
            made = work.make(data)
    except Exception as error:
        return Row(source, target, len(data), error=explain(error)), None
    return Row.of(source, target, len(data), made, round(time.perf_counter() - start, 4)), made.data


def discard(folder: Path) -> None:
    """Remove the results of a container that is finished."""
    shutil.rmtree(folder, ignore_errors=True)


def _found(work: Work, unit: Unit, source: bytes) -> Row:
    """An output that was not there when the run began: ours, finished but not noted, or somebody else's."""
    try:
        made = work.recognise(read(unit.target), source)
    except SprdiffError:
        made = None
    if made is None:
        error = f"{unit.target} already exists; only -f (force) overwrites it"
        return Row(unit.source, unit.target, len(source), error=error)
    return Row.of(unit.source, unit.target, len(source), made, None)


def _open(job: Job, path: Path) -> Shard | Table:
    assert job.kind != PICTURES
    if job.kind == SHARDS:
        return Shard(path, job.work)
    return Table(path, job.work, job.column, job.output_column)


def _labels(piece: Piece, index: int) -> tuple[str, str]:
    name, target = piece.content.label(index)
    return f"{piece.source}:{name}", f"{piece.target}:{target}"
