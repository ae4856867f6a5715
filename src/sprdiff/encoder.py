"""One picture on its way to bytes: at any level, at a target, and with its symbols refined."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from .common.progress import Report, part_of
from .format.container import Header, pack_file
from .format.intnet import LEVELS
from .imageio.open import Picture
from .imageio.resize import resize
from .ratecontrol import highest_fitting

if TYPE_CHECKING:
    from .runtime.first import FirstRuntime
    from .runtime.onnx import OnnxRuntime
    from .sd.runtime import TorchRuntime

    Runtime = FirstRuntime | OnnxRuntime | TorchRuntime

LITTLE, LOWEST_OF_LITTLE = 2**16, 64
"""Coded pixels up to which so many levels are tried for the smallest file."""
SAVED_LEVELS = 4
"""By how many levels refinement usually raises what fits."""
QUICKER = 3
"""How much less effort the first search takes."""
MARGIN = 0.003
"""Part of a file by which the second search may come out larger than the first lets expect."""


class Coding:
    """One picture at one coded scale: analysed once, coded at as many levels as rate control asks for."""

    def __init__(self, runtime: Runtime, picture: Picture, scale: int) -> None:
        height, width = picture.pixels.shape[:2]
        self._runtime = runtime
        self._header = Header(
            width, height, 0, scale, picture.grey, runtime.manifest.preset_id, runtime.weights_hash[:2]
        )
        coded = self._header.coded_size
        self.pixels = coded[0] * coded[1]
        self._picture = picture
        self._y, self._z = runtime.analyse(resize(picture.pixels, coded))
        self._files: dict[int, bytes] = {}

    def file(self, level: int) -> bytes:
        """The whole file at a level."""
        if level not in self._files:
            stream = self._runtime.entropy.encode(self._y, self._z, level).stream
            header = replace(self._header, level=level)
            self._files[level] = pack_file(header, stream, self._runtime.weights_hash)
        return self._files[level]

    def size(self, level: int) -> int:
        """Bytes of the whole file at a level."""
        return len(self.file(level))

    def smallest(self) -> bytes:
        """The smallest file at low levels: sizes of next to nothing differ by single bytes and need not grow."""
        levels = LOWEST_OF_LITTLE if self.pixels <= LITTLE else 1
        return min(map(self.file, range(levels)), key=len)

    def refined(self, level: int, effort: int, report: Report) -> Coding:
        """The same with another y, which costs less at a level for what it brings; meant for that level only."""
        pixels = resize(self._picture.pixels, self._header.coded_size)
        other = copy(self)
        other._y = self._runtime.refine(pixels, self._y, self._z, level, effort, report)
        other._files = {}
        return other


def refined_to(coding: Coding, limit: int, level: int, effort: int, report: Report) -> bytes:
    """A file of at most `limit` bytes from a refined y; `level` is the highest that fits as it is.

    Bytes saved pay for a higher level. A quick search tells how many that are, a thorough one runs at the level that
    this pays for, and once more if another level came of it: what is refined at one level is worth less at others.
    """
    aim = min(LEVELS - 1, level + SAVED_LEVELS)
    quick = coding.refined(aim, max(1, effort - QUICKER), part_of(report, 0.0, 0.2))
    saved = quick.size(aim) / coding.size(aim) * (1 + MARGIN)
    aim = highest_fitting(lambda at: math.ceil(coding.size(at) * saved), limit, aim) or level
    found: int | None = None
    for start in (0.2, 0.6):
        best = coding.refined(aim, effort, part_of(report, start, 0.4))
        found = highest_fitting(best.size, limit, aim)
        if found is None or found == aim:
            break
        aim = found
    report(1.0)
    return coding.file(level) if found is None else best.file(found)
