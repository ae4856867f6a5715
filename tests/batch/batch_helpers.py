"""Helpers of the tests of collections: they make small collections, and look at what came out."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from conftest import photo
from sprdiff.batch.local import Local
from sprdiff.batch.progress import Progress
from sprdiff.batch.recode import Decode, Encode, Work
from sprdiff.batch.run import Outcome, batch

T = TypeVar("T")
R = TypeVar("R")

ENCODE = Encode(quality=10)
DECODE = Decode()
Rows = list[dict[str, Any]]


def png(seed: int, size: int = 40) -> bytes:
    """Make the file of a small picture, another one for each seed."""
    stream = io.BytesIO()
    Image.fromarray(photo(size, size, seed)).save(stream, "PNG")
    return stream.getvalue()


def write_tree(folder: Path, names: Sequence[str]) -> Path:
    """Write pictures with these names; a file whose name is not that of a picture holds text."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed) if path.suffix.lower() in ENCODE.sources else b"text")
    return folder


def write_tar(path: Path, members: Iterable[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    """Write a tar file of members; a header without contents is put in as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                header = tarfile.TarInfo(member[0])
                header.size, header.mtime, header.uid, header.uname = len(member[1]), 7, 1000, "somebody"
                tar.addfile(header, io.BytesIO(member[1]))
    return path


def write_samples(path: Path, count: int, first: int = 0) -> Path:
    """Write a WebDataset shard with a picture and a caption in each sample."""
    members = []
    for seed in range(first, first + count):
        members += [(f"s{seed:03d}.png", png(seed)), (f"s{seed:03d}.txt", f"caption {seed}".encode())]
    return write_tar(path, members)


def write_table(
    path: Path, pictures: Sequence[bytes | None], *, group: int = 1000, **columns: Sequence[Any]
) -> Path:
    """Write a Parquet file with a column ``image`` and others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"image": pa.array(pictures, pa.binary()), **columns}), path, row_group_size=group
    )
    return path


def members(path: Path) -> list[tuple[str, bytes]]:
    """Return the names and contents of a tar file."""
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile()]  # type: ignore[union-attr]


def here(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Iterator[tuple[T, R | None]]:
    """Apply a function to tasks in this process, one after the other."""
    yield from ((task, function(task)) for task in tasks)


def engine(spread: Callable[..., Any], jobs: int = 1) -> Local:
    """Return the engine of this machine, with another way of applying functions in place of its processes."""

    class Pool:
        def __init__(self, jobs: int) -> None:
            self.jobs = jobs

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def apply(self, function: Any, tasks: Any) -> Iterator[Any]:
            yield from spread(function, tasks, self.jobs)

    return Local(jobs, Pool)


class Notebook(Progress):
    """A listener that keeps everything that a run tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.files: list[int] = []
        self.pictures = self.failed = self.held = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, files: int, *, pictures: bool) -> None:
        self.files.append(files)

    def opened(self, pictures: int) -> None:
        self.held += pictures

    def advanced(self, pictures: int, failed: int) -> None:
        self.pictures += pictures
        self.failed += failed


def run(source: Path | str, dest: Path | str, work: Work = ENCODE, **options: Any) -> Outcome:
    """Run a batch in this process."""
    return batch(str(source), str(dest), work, **{"engine": engine(here), **options})


def manifest(dest: Path) -> Rows:
    """Return the rows of a manifest."""
    rows: Rows = pq.read_table(dest / "_manifest.parquet").to_pylist()
    return rows


def outputs(dest: Path) -> dict[str, bytes]:
    """Return all files of a destination but those that belong to the run."""
    found = (
        path for path in sorted(dest.rglob("*")) if path.is_file() and ".sprdiff-batch" not in path.parts
    )
    return {
        str(path.relative_to(dest)): path.read_bytes() for path in found if path.name != "_manifest.parquet"
    }


def finished(dest: Path) -> list[str]:
    """Return the sources that have an output according to the record of a run, which must not be at work."""
    with closing(sqlite3.connect(dest / ".sprdiff-batch" / "records.sqlite")) as records:
        found = records.execute("SELECT source, result FROM files ORDER BY source").fetchall()
    return [json.loads(source) for source, result in found if json.loads(result)["output"]]
