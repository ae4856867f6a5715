"""Names of outputs: what they are called, that no two are the same, and that none leads out of its folder."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from ..errors import BatchError

_MAX_RANGE = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DRIVE = re.compile(r"[A-Za-z]:")


def targets(names: Collection[str], suffix: str, others: Collection[str] = ()) -> dict[str, str]:
    """What each picture of a folder becomes: ``a.jpg`` is ``a.sprd``, but next to ``a.png`` it is ``a.jpg.sprd``.

    Case counts as equal, for the disks on which it is.

    Args:
        names: of pictures; the same name twice is the same output.
        suffix: of outputs, with its dot.
        others: names in the same folder that stay as they are.
    """
    short = {name: posixpath.splitext(name)[0] + suffix for name in names}
    found = dict(short)
    while True:
        used = Counter(target.casefold() for target in [*found.values(), *set(others)])
        clashing = [name for name, target in found.items() if used[target.casefold()] > 1 and target == short[name]]
        if not clashing:
            return found
        for name in clashing:
            found[name] = name + suffix
            short[name] = ""  # it is long now and stays so


def is_safe(name: str) -> bool:
    """Whether a name with slashes stays inside the folder that it is put into, on any system."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in parts and not _DRIVE.match(name)


def has_controls(name: str) -> bool:
    """Whether a name could do something to a terminal: control characters, line ends, turns of direction."""
    return any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _TURNS for c in name)


def inside(address: str) -> str:
    """Where an address of a list goes: its host and path, without the steps that lead upwards."""
    path = address.partition("://")[2] if "://" in address else address
    parts = [part.replace(":", "_") for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts)


def expand(address: str) -> list[str]:
    """``photos-{000..041}.tar`` written out.

    Raises:
        BatchError: it stands for too many names.
    """
    match = _RANGE.search(address)
    if match is None:
        return [address]
    first, last = (int(text) for text in match.groups())
    if abs(last - first) >= _MAX_RANGE:
        raise BatchError(f"{address} stands for more than {_MAX_RANGE} names")
    numbers = (str(number).zfill(len(match[1])) for number in range(first, last + 1))
    return [name for number in numbers for name in expand(address[: match.start()] + number + address[match.end() :])]
