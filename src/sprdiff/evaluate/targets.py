"""Targets: a number of bits per pixel of the original, or a number of bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A target, such as ``Target(0.0203)`` or ``Target(bytes=1200)``.

    Attributes:
        bpp: the largest number of bits of the whole file per pixel of the original.
        bytes: the largest size of the whole file.

    Raises:
        ValueError: both or none are given, or the number is not above 0.
    """

    bpp: float | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.bpp, self.bytes) if value is not None]
        if len(given) != 1 or not (math.isfinite(given[0]) and given[0] > 0):
            raise ValueError("a target is a number of bits per pixel or of bytes, above 0")

    def __lt__(self, other: Target) -> bool:
        """Order targets: bits per pixel come before bytes, small ones before large ones."""
        return self._place < other._place

    def __str__(self) -> str:
        """Return a text such as ``0.0203 bpp`` or ``1200 bytes``."""
        return f"{self.bytes} bytes" if self.bpp is None else f"{self.bpp:g} bpp"

    def budget(self, width: int, height: int) -> int:
        """Return the largest size in bytes of the file of a picture of this size."""
        if self.bytes is not None:
            return self.bytes
        assert self.bpp is not None
        return math.floor(self.bpp * width * height / 8)

    @property
    def folder(self) -> str:
        """The short form, which also names a folder: ``0.0203``, ``1200B``."""
        return f"{self.bytes}B" if self.bpp is None else f"{self.bpp}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read the short form.

        Raises:
            ValueError: the text is something else.
        """
        return cls(bytes=int(text[:-1])) if text.endswith("B") else cls(float(text))

    @property
    def _place(self) -> tuple[bool, float]:
        return self.bpp is None, self.bpp or self.bytes or 0
