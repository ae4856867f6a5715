"""The pages of a TIFF file and which of them is the picture: TIFF 6.0, BigTIFF, and the layouts of DNG and
NEF.

A page says whether it is a reduced copy (NewSubfileType bit 0, or the older SubfileType 2) or a mask (bit 2).
Cameras put a thumbnail first and the picture into a page below it (SubIFDs); some programs put the picture on
a later page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, PLANAR, SUB_PAGES, EXTRA, FORMAT = 274, 277, 284, 330, 338, 339
_WANTED = frozenset(
    {
        SUBFILE,
        OLD_SUBFILE,
        WIDTH,
        HEIGHT,
        BITS,
        COMPRESSION,
        PHOTOMETRIC,
        ORIENTATION,
        SAMPLES,
        PLANAR,
        SUB_PAGES,
    }
    | {EXTRA, FORMAT}
)
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
MAX_PAGES = 1000
_MAX_VALUES = 256
_MAX_ENTRIES = 4096

COMPRESSIONS = {
    1: "none",
    2: "CCITT",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32809: "ThunderScan",
    32946: "Deflate",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI Log",
    34677: "SGI Log 24",
    34712: "JPEG 2000",
    34713: "Nikon raw",
    34887: "LERC",
    34892: "lossy JPEG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    65000: "Kodak raw",
}
PHOTOMETRICS = {
    0: "grey, white is zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "raw data of a camera's sensor",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw data of a camera",
    51177: "depth map",
    52527: "semantic mask",
}
_RAW = frozenset({32803, 34892})


@dataclass(frozen=True)
class TiffPage:
    """One page (IFD).

    Attributes:
        offset: its position in the file.
        tags: the values of the tags that say what it contains.
    """

    offset: int
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def first(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]

    @property
    def reduced(self) -> bool:
        """Whether the page is a smaller copy of another one."""
        return bool(self.first(SUBFILE, 0) & 1) or self.first(OLD_SUBFILE, 0) == 2

    @property
    def mask(self) -> bool:
        """Whether the page is a mask or a depth map of another one."""
        return bool(self.first(SUBFILE, 0) & 4) or self.first(PHOTOMETRIC, 1) in (4, 51177, 52527)

    @property
    def pixels(self) -> int:
        """Width x height."""
        width, height = self.size
        return width * height

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.first(WIDTH, 0), self.first(HEIGHT, 0)

    @property
    def is_raw(self) -> bool:
        """Whether the page contains raw data of a camera's sensor, which have to be developed first."""
        return self.first(PHOTOMETRIC, 1) in _RAW

    def kind(self) -> str:
        """Describe the pixels for a message: ``float16 RGB, compression LERC``."""
        number = {1: "", 2: "signed ", 3: "float "}.get(self.first(FORMAT, 1), "complex ")
        code = self.first(COMPRESSION, 1)
        photometric = self.first(PHOTOMETRIC, 1)
        shown = PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
        bits = f"{number}{self.first(BITS, 1)}-bit {shown}"
        return bits if code == 1 else f"{bits}, compression {COMPRESSIONS.get(code, code)}"


@dataclass(frozen=True)
class Pages:
    """All pages that can be read.

    Attributes:
        chain: the pages that follow each other from the head of the file.
        below: the SubIFDs of those, in order.
        big: whether the file is a BigTIFF.
        order: the byte order, ``<`` or ``>``.
    """

    chain: list[TiffPage]
    below: list[TiffPage]
    big: bool
    order: str

    def picture(self) -> TiffPage:
        """Return the page that is the picture: the first, unless it says that it is a reduced copy or a
        mask."""
        first = self.chain[0]
        if not (first.reduced or first.mask):
            return first
        full = [
            page for page in [*self.chain, *self.below] if not (page.reduced or page.mask) and page.pixels
        ]
        return max(full, key=lambda page: page.pixels, default=first)

    def further(self) -> int:
        """Count the pages that are neither the picture nor a copy or a mask of another one."""
        picture = self.picture()
        return sum(not (page.reduced or page.mask) for page in self.chain if page is not picture)

    def head(self, page: TiffPage) -> bytes:
        """Return the head of a file whose first page is `page`."""
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(self.order + "HHHQ", 43, 8, 0, page.offset)
        return mark + struct.pack(self.order + "HI", 42, page.offset)


def is_tiff(prefix: bytes) -> bool:
    """Whether a file begins as TIFF files do."""
    return prefix[:2] in (b"II", b"MM") and prefix[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+")


def read_pages(stream: IO[bytes]) -> Pages | None:
    """Return the pages of a TIFF file; None if not even the first can be read. The stream keeps its
    position."""
    position = stream.tell()
    try:
        stream.seek(0)
        head = stream.read(16)
        order, big = ("<" if head[:2] == b"II" else ">"), b"+" in head[2:4]
        chain = list(_chain(stream, head, order, big))
        below = [page for parent in chain for page in _below(stream, parent, order, big)]
    except (struct.error, OSError, ValueError, OverflowError):
        return None
    finally:
        stream.seek(position)
    return Pages(chain, below[:MAX_PAGES], big, order) if chain else None


def _chain(stream: IO[bytes], head: bytes, order: str, big: bool) -> Iterator[TiffPage]:
    following = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
    seen: set[int] = set()
    while following and following not in seen and len(seen) < MAX_PAGES:
        seen.add(following)
        try:
            page, following = _read(stream, following, order, big)
        except (struct.error, OSError, ValueError, OverflowError):
            if len(seen) == 1:
                raise
            return  # a later page is damaged
        yield page


def _below(stream: IO[bytes], parent: TiffPage, order: str, big: bool) -> Iterator[TiffPage]:
    for offset in parent.tags.get(SUB_PAGES, ()):
        try:
            yield _read(stream, offset, order, big)[0]
        except (struct.error, OSError, ValueError, OverflowError):
            continue


def _read(stream: IO[bytes], offset: int, order: str, big: bool) -> tuple[TiffPage, int]:
    """Read a page; return it and the position of the next one."""
    stream.seek(offset)
    size, kind = (20, "HHQ8s") if big else (12, "HHI4s")
    count = struct.unpack(order + ("Q" if big else "H"), stream.read(8 if big else 2))[0]
    if count > _MAX_ENTRIES:
        raise ValueError("too many entries")
    table = stream.read(count * size)
    following = struct.unpack(order + ("Q" if big else "I"), stream.read(8 if big else 4))[0]
    tags = {}
    for start in range(0, len(table), size):
        tag, code, length, value = struct.unpack(order + kind, table[start : start + size])
        if tag in _WANTED and code in _TYPES:
            tags[tag] = _values(stream, order, _TYPES[code], min(length, _MAX_VALUES), value)
    return TiffPage(offset, tags), following


def _values(stream: IO[bytes], order: str, code: str, length: int, value: bytes) -> tuple[int, ...]:
    wanted = struct.calcsize(order + code) * length
    if wanted > len(value):
        stream.seek(struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)[0])
        value = stream.read(wanted)
    return struct.unpack(f"{order}{length}{code}", value[:wanted])
