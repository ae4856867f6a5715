"""What a collection consists of: its kind, its files, and the output of each."""

from __future__ import annotations

import os
import posixpath
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..common.messages import reason
from ..common.remote import absolute, as_path, expand, is_remote, is_web, join
from ..errors import BatchError
from .names import inside, is_safe, targets
from .recode import Work
from .storage import Stamp, is_remote_folder, read, stat, walk

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


@dataclass(frozen=True)
class Collection:
    """A source that has been looked at.

    Attributes:
        kind: one of `KINDS`.
        items: its files, in an order that depends on names only.
        passed_over: how many files of each kind are no part of the collection.
    """

    kind: str
    items: Sequence[Item]
    passed_over: Counter[str]


def look_at(source: str, dest: str, work: Work, kind: str | None = None) -> Collection:
    """Find out what a source consists of: a tree, a list (a text file or standard input), shards or Parquet.

    Args:
        dest: the folder of the outputs; if it lies inside the source, it is no part of it.
        kind: one of `KINDS`; None: what the names of the files say, which then must agree.

    Raises:
        BatchError: the source holds nothing of the kind, or several kinds, or it cannot be read.
    """
    if not is_remote(source) and source != STDIN and as_path(source).is_dir():
        return _look_at_tree(source, dest, work, kind)
    plain = _plain(source).lower()
    if source == STDIN or plain.endswith(_LISTS):
        shown = "standard input" if source == STDIN else source
        return _look_at_names(shown, [(line, inside(line)) for line in _read_list(source)], dest, work, kind)
    if plain.endswith(_COMPRESSED):
        raise BatchError(f"{source}: compressed shards cannot be read in pieces: decompress to .tar first")
    written = expand(source, BatchError)
    if len(written) > 1 or posixpath.splitext(plain)[1] in _CONTAINERS:
        return _look_at_names(source, _beside_each_other(written), dest, work, kind)
    if is_web(source):
        raise BatchError(f"{source}: web servers list no folders: give a list, or shards, or Parquet")
    if is_remote_folder(source):
        return _look_at_tree(source, dest, work, kind)
    there = f"neither a folder, nor a list ({' '.join(_LISTS)}), nor .tar or .parquet"
    raise BatchError(f"{source}: {there if stat(source) else 'no such folder or file'}")


def in_words(found: Counter[str]) -> str:
    """Say the counts in words, the largest first: ``3 .txt, 1 hidden``; empty if there are none."""
    most = found.most_common(6)
    rest = found.total() - sum(count for _, count in most)
    return ", ".join([f"{count} {what}" for what, count in most] + ([f"{rest} others"] if rest else []))


def _kind(name: str, work: Work) -> str | None:
    """Return the kind of collection that a file of this name belongs to; None for no kind."""
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in work.sources:
        return PICTURES
    return None if posixpath.basename(name).startswith("_") else _CONTAINERS.get(suffix)


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower() or "without extension"


def _look_at_tree(source: str, dest: str, work: Work, kind: str | None) -> Collection:
    folders, others, kinds = list[tuple[str, dict[str, Stamp]]](), Counter[str](), Counter[str]()
    for folder, files, passed_over in walk(source, without=dest):
        files.pop(MANIFEST, None)
        folders.append((f"{folder}/" if folder else "", files))
        others.update(passed_over)
        kinds.update(_kind(name, work) or _suffix(name) for name in files)
    held = [name for name in kinds if name in KINDS]
    if kind is None and len(held) > 1:
        raise BatchError(
            f"{source} holds {in_words(Counter({name: kinds[name] for name in held}))}: say which with --as"
        )
    chosen = kind or next(iter(held), "")
    if not kinds[chosen]:
        there = in_words(others + kinds)
        raise BatchError(f"{source} holds nothing to {work.verb}" + (f" ({there})" if there else ""))
    items = list[Item]()
    for inner, files in folders:
        wanted = {name: name for name in files if _kind(name, work) == chosen}
        others.update(_suffix(name) for name in files if name not in wanted)
        renamed = targets(wanted, work.suffix) if chosen == PICTURES else wanted
        items += [_item(join(source, inner + n), dest, inner + renamed[n], files[n]) for n in wanted]
    return Collection(chosen, items, others)


def _look_at_names(
    shown: str, named: Sequence[tuple[str, str]], dest: str, work: Work, kind: str | None
) -> Collection:
    """Make a collection of named files; each comes with its output's name before the suffix is changed."""
    unique = dict(named)
    if not unique:
        raise BatchError(f"{shown} names nothing to {work.verb}")
    # A file in a list whose name tells nothing is tried as a picture.
    kinds = {_kind(_plain(source), work) or PICTURES for source in unique}
    if kind is None and len(kinds) > 1:
        raise BatchError(f"{shown} names {' and '.join(sorted(kinds))}: say which with --as")
    chosen, taken = kind or kinds.pop(), dict[str, str]()
    for source, name in unique.items():
        if not name:
            raise BatchError(f"{shown} names {source}, which is no file")
        other = taken.setdefault(name, source)
        if other != source:
            raise BatchError(f"{other} and {source} would become the same output")
    names = targets(taken, work.suffix) if chosen == PICTURES else {name: name for name in taken}
    items = [_item(absolute(source), dest, names[name], Stamp()) for name, source in taken.items()]
    return Collection(
        chosen, items, Counter({"named twice": len(named) - len(unique)} if len(named) > len(unique) else {})
    )


def _item(source: str, dest: str, name: str, stamp: Stamp) -> Item:
    return Item(source, join(dest, name) if is_safe(name) else "", stamp.size, stamp.time)


def _beside_each_other(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Return containers, each with its name below the folder that they have in common."""
    plain = [_plain(source).rpartition("://")[2].replace(os.sep, "/") for source in sources]
    shared = posixpath.commonpath([posixpath.dirname(name) for name in plain]) if plain else ""
    return [(source, name[len(shared) :].lstrip("/")) for source, name in zip(sources, plain, strict=True)]


def _plain(address: str) -> str:
    return address.partition("?")[0].partition("#")[0] if is_web(address) else address


def _read_list(source: str) -> list[str]:
    try:
        text = sys.stdin.buffer.read() if source == STDIN else read(source)
    except OSError as error:
        raise BatchError(f"standard input cannot be read: {reason(error)}") from error
    lines = (os.fsdecode(line).rstrip("\r") for line in text.split(b"\n"))
    return [line for line in lines if line.strip()]
