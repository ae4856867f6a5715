"""What a file may take: so many bits for each pixel of the original, or so many bytes whatever its size."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One of the two; ``Target(0.0203)`` and ``Target(bytes=1200)``.

    Attributes:
        bpp: most bits per pixel of the original, for the whole file.
        bytes: most bytes of the whole file.

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
        """Bits per pixel come before bytes, small ones before large ones."""
        return self._place < other._place

    def __str__(self) -> str:
        """``0.0203 bpp``, ``1200 bytes``."""
        return f"{self.bytes} bytes" if self.bpp is None else f"{self.bpp:g} bpp"

    def budget(self, width: int, height: int) -> int:
        """Most bytes that a file of a picture of this size may have."""
        if self.bytes is not None:
            return self.bytes
        assert self.bpp is not None
        return math.floor(self.bpp * width * height / 8)

    @property
    def folder(self) -> str:
        """The name of its folder, and its short form: ``0.0203``, ``1200B``."""
        return f"{self.bytes}B" if self.bpp is None else f"{self.bpp}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """From the short form.

        Raises:
            ValueError: it is none.
        """
        return cls(bytes=int(text[:-1])) if text.endswith("B") else cls(float(text))

    @property
    def _place(self) -> tuple[bool, float]:
        return self.bpp is None, self.bpp or self.bytes or 0
