"""Names of outputs: no two are the same, and none leads out of its folder."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Collection

_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DRIVE = re.compile(r"[A-Za-z]:")


def targets(names: Collection[str], suffix: str, others: Collection[str] = ()) -> dict[str, str]:
    """Name the outputs of a folder: ``a.jpg`` becomes ``a.sprd``, but ``a.jpg.sprd`` next to ``a.png``.

    Upper and lower case count as equal, because they are on some disks.

    Args:
        names: of the pictures; the same name twice has the same output.
        suffix: of the outputs, with its dot.
        others: names in the same folder that stay as they are.
    """
    short = {name: posixpath.splitext(name)[0] + suffix for name in names}
    found = dict(short)
    while True:
        used = Counter(target.casefold() for target in [*found.values(), *set(others)])
        clashing = [
            name for name, target in found.items() if used[target.casefold()] > 1 and target == short[name]
        ]
        if not clashing:
            return found
        for name in clashing:
            found[name] = name + suffix
            short[name] = ""  # the name is long now and stays so


def is_safe(name: str) -> bool:
    """Whether a name with slashes stays inside the folder that it is put into, on any system."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in parts and not _DRIVE.match(name)


def has_controls(name: str) -> bool:
    """Whether a name holds what acts on a terminal: control characters, line ends, marks of direction."""
    return any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _DIRECTION_MARKS for c in name)


def inside(address: str) -> str:
    """Name the output of an address in a list: its host and path, without the parts that lead upwards."""
    path = address.partition("://")[2] if "://" in address else address
    parts = [
        part.replace(":", "_") for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")
    ]
    return "/".join(parts)
