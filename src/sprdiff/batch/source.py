"""What a collection consists of: its kind, its files, and where each of them goes."""

from __future__ import annotations

import os
import posixpath
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import BatchError
from .names import expand, inside, is_safe, targets
from .recode import Work
from .stores import absolute, as_path, is_folder, is_remote, is_web, join, read, reason, size_of, walk

PICTURES, SHARDS, PARQUET = "pictures", "shards", "parquet"
KINDS = (PICTURES, SHARDS, PARQUET)
MANIFEST = "_manifest.parquet"
"""Readers of Parquet folders pass over names that begin with an underscore."""
STDIN = "-"
_CONTAINERS = {".tar": SHARDS, ".parquet": PARQUET, ".pq": PARQUET}
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_LISTS = (".txt", ".lst", ".list")


@dataclass(frozen=True)
class Unit:
    """One file of a collection: what is done or not done as a whole.

    Attributes:
        n: its place in the plan, from 0.
        source: its address.
        target: the address of what it becomes; empty where it may not have one.
        size: bytes, where they are known without asking.
    """

    n: int
    source: str
    target: str
    size: int | None = None


@dataclass
class Collection:
    """A source that has been looked at.

    Attributes:
        kind: one of `KINDS`.
        source: as it was given.
        work: what is done with it.
        named: (address, name of the output before its suffix is changed), where files are named one by one.
        repeated: how many more times they are named.
        passed_over: how many files of what kind are not part of it; complete when `units` has ended.
    """

    kind: str
    source: str
    work: Work
    named: Sequence[tuple[str, str]] | None = None
    repeated: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    def units(self, dest: str) -> Iterator[Unit]:
        """All files in an order that only names determine; a folder `dest` inside the source is left out."""
        self.passed_over = Counter({"named twice": self.repeated} if self.repeated else {})
        found = self._tree(dest) if self.named is None else self._named(self.named)
        for n, (source, name, size) in enumerate(found):
            yield Unit(n, source, join(dest, name) if is_safe(name) else "", size)

    def _named(self, named: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, int | None]]:
        names = {name: name for _, name in named}
        if self.kind == PICTURES:
            names = targets(names, self.work.suffix)
        yield from ((absolute(source), names[name], None) for source, name in named)

    def _tree(self, dest: str) -> Iterator[tuple[str, str, int | None]]:
        for listing in walk(self.source, without=dest):
            self.passed_over.update(listing.passed_over)
            wanted = {name: size for name, size in listing.files if kind_of(name, self.work) == self.kind}
            self.passed_over.update(suffix_of(n) for n, _ in listing.files if n not in wanted and n != MANIFEST)
            inner = f"{listing.folder}/" if listing.folder else ""
            renamed = targets(wanted, self.work.suffix) if self.kind == PICTURES else {name: name for name in wanted}
            for name, size in wanted.items():
                yield join(self.source, inner + name), inner + renamed[name], size


def look_at(source: str, work: Work, *, kind: str | None = None, dest: str = "") -> Collection:
    """Find out what a source is: a tree, a list (a text file, or ``-``), shards or Parquet.

    Args:
        kind: one of `KINDS`; None: by the names of the files, which then must agree.
        dest: a folder inside the source that is no part of it.

    Raises:
        BatchError: there is nothing of the kind, or several kinds, or it cannot be read.
    """
    if not is_remote(source) and source != STDIN and as_path(source).is_dir():
        return _look_at_tree(source, work, kind, dest)
    plain = _plain(source).lower()
    if source == STDIN or plain.endswith(_LISTS):
        lines = _read_list(source)
        return _look_at_names(_shown(source), [(line, inside(line)) for line in lines], work, kind)
    if plain.endswith(_COMPRESSED):
        raise BatchError(f"{source}: compressed shards cannot be read in pieces: decompress to .tar first")
    written = expand(source)
    if len(written) > 1 or posixpath.splitext(plain)[1] in _CONTAINERS:
        return _look_at_names(source, _beside_each_other(written), work, kind)
    if is_web(source):
        raise BatchError(f"{source}: web servers list no folders: give a list, or shards, or Parquet")
    if is_folder(source):
        return _look_at_tree(source, work, kind, dest)
    what = "no such folder or file"
    if size_of(source) is not None:
        what = f"neither a folder, nor a list ({' '.join(_LISTS)}), nor .tar or .parquet"
    raise BatchError(f"{source}: {what}")


def kind_of(name: str, work: Work) -> str | None:
    """Which kind of collection a file is a part of, by its name; None for none."""
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in work.sources:
        return PICTURES
    return None if posixpath.basename(name).startswith("_") else _CONTAINERS.get(suffix)


def suffix_of(name: str) -> str:
    """How files of this name are counted."""
    return posixpath.splitext(name)[1].lower() or "without extension"


def in_words(found: Counter[str]) -> str:
    """The count in words, the most frequent first: ``3 .txt, 1 hidden``; empty when there is nothing to say."""
    most = found.most_common(6)
    rest = found.total() - sum(count for _, count in most)
    return ", ".join([f"{count} {what}" for what, count in most] + ([f"{rest} others"] if rest else []))


def _look_at_tree(source: str, work: Work, kind: str | None, dest: str) -> Collection:
    others: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for listing in walk(source, without=dest):
        others.update(listing.passed_over)
        for name, _ in listing.files:
            if found := kind_of(name, work):
                kinds[found] += 1
            elif name != MANIFEST:
                others[suffix_of(name)] += 1
    if kind is None and len(kinds) > 1:
        raise BatchError(f"{source} holds {in_words(kinds)}: say which with --as")
    chosen = kind or next(iter(kinds), "")
    if not kinds[chosen]:
        there = in_words(others + kinds)
        raise BatchError(f"{source} holds nothing to {work.verb}" + (f" ({there})" if there else ""))
    return Collection(chosen, source, work)


def _look_at_names(shown: str, named: Sequence[tuple[str, str]], work: Work, kind: str | None) -> Collection:
    """A collection whose files are named one by one."""
    unique = dict(named)
    if not unique:
        raise BatchError(f"{shown} names nothing to {work.verb}")
    # What has no telling name in a list of files is tried as a picture.
    kinds = {kind_of(_plain(source), work) or PICTURES for source in unique}
    if kind is None and len(kinds) > 1:
        raise BatchError(f"{shown} names {' and '.join(sorted(kinds))}: say which with --as")
    taken: dict[str, str] = {}
    for source, name in unique.items():
        if not name:
            raise BatchError(f"{shown} names {source}, which is no file")
        other = taken.setdefault(name, source)
        if other != source:
            raise BatchError(f"{other} and {source} would become the same output")
    chosen = kind or kinds.pop()
    return Collection(chosen, shown, work, list(unique.items()), len(named) - len(unique))


def _beside_each_other(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Containers with their names below the folder that they have in common."""
    plain = [_plain(source).rpartition("://")[2].replace(os.sep, "/") for source in sources]
    if len(plain) == 1:
        return [(sources[0], posixpath.basename(plain[0]))]
    shared = posixpath.commonpath([posixpath.dirname(name) for name in plain])
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
