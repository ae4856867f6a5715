"""One picture on its way to bytes: coded at any level, at the level and scale that a size allows, or
refined."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from .common.progress import Report, part_of
from .errors import TargetError
from .format.constants import LEVELS
from .format.container import Header, pack_file
from .imageio.open import Picture
from .imageio.resize import resize
from .options import EncodeOptions
from .ratecontrol import candidate_scales, first_guess, highest_fitting

if TYPE_CHECKING:
    from .loading import Runtime

SMALL, LOWEST_OF_SMALL = 2**16, 64
"""Pictures of up to this many coded pixels are tried at this many levels for the smallest file."""
SAVED_LEVELS = 4
"""Levels by which refinement usually raises what fits."""
QUICKER = 3
"""How much lower the effort of the first search is."""
MARGIN = 0.003
"""The share of a file by which the second search may come out larger than the first one promises."""


def encode(runtime: Runtime, picture: Picture, options: EncodeOptions, report: Report) -> bytes:
    """Return the bytes of the file of a picture.

    Args:
        report: is told the fraction of the refinement that is done.

    Raises:
        EffortError: torch is missing, or these networks cannot be refined.
        TargetError: no file is as small as the options ask for; the error names the smallest.
    """
    level = options.level
    if level is not None:
        coding = Coding(runtime, picture, options.scale_code or 0)
        return (coding.refined(level, options.effort, report) if options.effort else coding).file(level)
    return _encode_to(runtime, picture, options, report)


def _encode_to(runtime: Runtime, picture: Picture, options: EncodeOptions, report: Report) -> bytes:
    """Return the best file within the limit; if none fits, an error where the limit was asked for, else
    the smallest file."""
    height, width = picture.pixels.shape[:2]
    limit, code = options.limit(width, height), options.scale_code
    smallest: list[bytes] = []
    for candidate in candidate_scales(width, height, limit) if code is None else [code]:
        coding = Coding(runtime, picture, candidate)
        level = highest_fitting(coding.size, limit, first_guess(limit, coding.pixels))
        if level is not None:
            return (
                _refined_to(coding, limit, level, options.effort, report)
                if options.effort
                else coding.file(level)
            )
        smallest.append(coding.smallest())
        if len(smallest[-1]) <= limit:  # sizes of tiny files need not grow: level 0 may be the larger one
            return smallest[-1]
    found = min(smallest, key=len)
    if not options.has_limit:
        return found
    at = "" if code is None else " at this scale"
    message = f"{limit} bytes are too few: the smallest file of this picture{at} has {len(found)} bytes"
    raise TargetError(message, len(found))


class Coding:
    """One picture at one coded scale: analysed once, coded at as many levels as rate control asks for."""

    def __init__(self, runtime: Runtime, picture: Picture, scale: int) -> None:
        height, width = picture.pixels.shape[:2]
        self._runtime = runtime
        manifest, tag = runtime.manifest, runtime.weights_hash[:2]
        self._header = Header(width, height, 0, scale, picture.grey, manifest.preset_id, tag)
        coded = self._header.coded_size
        self.pixels = coded[0] * coded[1]
        self._picture = picture
        self._y, self._z = runtime.analyse(resize(picture.pixels, coded))
        self._files: dict[int, bytes] = {}

    def file(self, level: int) -> bytes:
        """Return the whole file at a level."""
        if level not in self._files:
            stream = self._runtime.entropy.encode(self._y, self._z, level).stream
            header = replace(self._header, level=level)
            self._files[level] = pack_file(header, stream, self._runtime.weights_hash)
        return self._files[level]

    def size(self, level: int) -> int:
        """Return the bytes of the whole file at a level."""
        return len(self.file(level))

    def smallest(self) -> bytes:
        """Return the smallest file at low levels. The sizes of tiny files differ by single bytes and need
        not grow."""
        levels = LOWEST_OF_SMALL if self.pixels <= SMALL else 1
        return min(map(self.file, range(levels)), key=len)

    def refined(self, level: int, effort: int, report: Report) -> Coding:
        """Return the same picture with another y, which costs less for its quality at this level; of no
        use for others."""
        pixels = resize(self._picture.pixels, self._header.coded_size)
        other = copy(self)
        other._y = self._runtime.refine(pixels, self._y, self._z, level, effort, report)
        other._files = {}
        return other


def _refined_to(coding: Coding, limit: int, level: int, effort: int, report: Report) -> bytes:
    """Return a file of at most `limit` bytes from a refined y; `level` is the highest that fits without
    refinement.

    The bytes that refinement saves pay for a higher level. A quick search tells how many bytes that will be,
    and a thorough one runs at the level that they pay for. It runs once more if the result fits another
    level, because what is refined at one level is worth less at others.
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
