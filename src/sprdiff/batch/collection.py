"""What a collection consists of: its kind, its files, and the output of each of them."""

from __future__ import annotations

import os
import posixpath
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..common.messages import reason
from ..common.remote import absolute, as_path, expand, is_remote, is_web, join
from ..errors import BatchError
from .names import inside, is_safe, targets
from .recode import Work
from .storage import Stamp, is_folder, read, stat, walk

PICTURES, SHARDS, PARQUET = "pictures", "shards", "parquet"
KINDS = (PICTURES, SHARDS, PARQUET)
MANIFEST = "_manifest.parquet"
"""Readers of Parquet folders pass over names that begin with an underscore."""
STDIN = "-"
_CONTAINERS = {".tar": SHARDS, ".parquet": PARQUET, ".pq": PARQUET}
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_LISTS = (".txt", ".lst", ".list")


@dataclass(frozen=True)
class Item:
    """One file of a collection, which is done as a whole: a picture, or a container of pictures.

    Attributes:
        source: its address.
        target: the address of its output; empty if its name does not permit one.
        size, time: of the source, as its folder lists them; see `storage.Stamp`.
        own: the SHA-256 of what an earlier run has left at the target; empty if nothing is known to be there.
    """

    source: str
    target: str
    size: int | None = None
    time: str = ""
    own: str = ""


@dataclass
class Collection:
    """A source that has been looked at.

    Attributes:
        kind: one of `KINDS`.
        source: its address.
        work: what is done with it.
        named: source and name of the output before its suffix is changed, for files that are named one by one.
        repeated: how many times files are named again.
        passed_over: how many files of each kind are no part of the collection; complete when `items` has ended.
    """

    kind: str
    source: str
    work: Work
    named: Sequence[tuple[str, str]] | None = None
    repeated: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    def items(self, dest: str) -> Iterator[Item]:
        """Iterate over all files, in an order that depends on names only.

        Args:
            dest: the folder of the outputs; if it lies inside the source, it is left out.
        """
        self.passed_over = Counter({"named twice": self.repeated} if self.repeated else {})
        for source, name, stamp in self._tree(dest) if self.named is None else self._named(self.named):
            yield Item(source, join(dest, name) if is_safe(name) else "", stamp.size, stamp.time)

    def _named(self, named: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, Stamp]]:
        names = {name: name for _, name in named}
        if self.kind == PICTURES:
            names = targets(names, self.work.suffix)
        yield from ((absolute(source), names[name], Stamp()) for source, name in named)

    def _tree(self, dest: str) -> Iterator[tuple[str, str, Stamp]]:
        for folder, files, passed_over in walk(self.source, without=dest):
            wanted = {name: name for name in files if _kind(name, self.work) == self.kind}
            self.passed_over.update(passed_over)
            self.passed_over.update(_suffix(name) for name in files if name not in wanted and name != MANIFEST)
            inner = f"{folder}/" if folder else ""
            renamed = targets(wanted, self.work.suffix) if self.kind == PICTURES else wanted
            for name in wanted:
                yield join(self.source, inner + name), inner + renamed[name], files[name]


def look_at(source: str, work: Work, *, kind: str | None = None, dest: str = "") -> Collection:
    """Find out what a source is: a tree, a list (a text file or standard input), shards or Parquet.

    Args:
        kind: one of `KINDS`; None: what the names of the files say, which then must agree.
        dest: a folder inside the source that is no part of it.

    Raises:
        BatchError: the source holds nothing of the kind, or several kinds, or it cannot be read.
    """
    if not is_remote(source) and source != STDIN and as_path(source).is_dir():
        return _look_at_tree(source, work, kind, dest)
    plain = _plain(source).lower()
    if source == STDIN or plain.endswith(_LISTS):
        return _look_at_names(_shown(source), [(line, inside(line)) for line in _read_list(source)], work, kind)
    if plain.endswith(_COMPRESSED):
        raise BatchError(f"{source}: compressed shards cannot be read in pieces: decompress to .tar first")
    written = expand(source, BatchError)
    if len(written) > 1 or posixpath.splitext(plain)[1] in _CONTAINERS:
        return _look_at_names(source, _beside_each_other(written), work, kind)
    if is_web(source):
        raise BatchError(f"{source}: web servers list no folders: give a list, or shards, or Parquet")
    if is_folder(source):
        return _look_at_tree(source, work, kind, dest)
    there = f"neither a folder, nor a list ({' '.join(_LISTS)}), nor .tar or .parquet"
    raise BatchError(f"{source}: {there if stat(source) else 'no such folder or file'}")


def in_words(found: Counter[str]) -> str:
    """Say the counts in words, the largest first: ``3 .txt, 1 hidden``; empty if there are none."""
    most = found.most_common(6)
    rest = found.total() - sum(count for _, count in most)
    return ", ".join([f"{count} {what}" for what, count in most] + ([f"{rest} others"] if rest else []))


def _kind(name: str, work: Work) -> str | None:
    """The kind of collection that a file of this name belongs to; None for no kind."""
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in work.sources:
        return PICTURES
    return None if posixpath.basename(name).startswith("_") else _CONTAINERS.get(suffix)


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower() or "without extension"


def _look_at_tree(source: str, work: Work, kind: str | None, dest: str) -> Collection:
    others, kinds = Counter[str](), Counter[str]()
    for _, files, passed_over in walk(source, without=dest):
        others.update(passed_over)
        for name in files:
            if name == MANIFEST:
                continue
            found = _kind(name, work)
            (kinds if found else others)[found or _suffix(name)] += 1
    if kind is None and len(kinds) > 1:
        raise BatchError(f"{source} holds {in_words(kinds)}: say which with --as")
    chosen = kind or next(iter(kinds), "")
    if not kinds[chosen]:
        there = in_words(others + kinds)
        raise BatchError(f"{source} holds nothing to {work.verb}" + (f" ({there})" if there else ""))
    return Collection(chosen, source, work)


def _look_at_names(shown: str, named: Sequence[tuple[str, str]], work: Work, kind: str | None) -> Collection:
    unique = dict(named)
    if not unique:
        raise BatchError(f"{shown} names nothing to {work.verb}")
    # A file in a list whose name tells nothing is tried as a picture.
    kinds = {_kind(_plain(source), work) or PICTURES for source in unique}
    if kind is None and len(kinds) > 1:
        raise BatchError(f"{shown} names {' and '.join(sorted(kinds))}: say which with --as")
    taken: dict[str, str] = {}
    for source, name in unique.items():
        if not name:
            raise BatchError(f"{shown} names {source}, which is no file")
        other = taken.setdefault(name, source)
        if other != source:
            raise BatchError(f"{other} and {source} would become the same output")
    return Collection(kind or kinds.pop(), shown, work, list(unique.items()), len(named) - len(unique))


def _beside_each_other(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Containers, each with its name below the folder that they have in common."""
    plain = [_plain(source).rpartition("://")[2].replace(os.sep, "/") for source in sources]
    shared = posixpath.commonpath([posixpath.dirname(name) for name in plain]) if plain else ""
    return [(source, name[len(shared) :].lstrip("/")) for source, name in zip(sources, plain, strict=True)]


def _plain(address: str) -> str:
    return address.partition("?")[0].partition("#")[0] if is_web(address) else address


def _read_list(source: str) -> list[str]:
    try:
        text = sys.stdin.buffer.read() if source == STDIN else read(source)
    except OSError as error:
        raise BatchError(f"{_shown(source)} cannot be read: {reason(error)}") from error
    lines = (os.fsdecode(line).rstrip("\r") for line in text.split(b"\n"))
    return [line for line in lines if line.strip()]


def _shown(source: str) -> str:
    return "standard input" if source == STDIN else source
