"""What a file says beside the pixels that Pillow returns; `gather` and the modules of the formats fill it
in."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from .primaries import Named
from .samples import Samples


@dataclass
class Facts:
    """What a file says beside its pixels.

    Attributes:
        depth: bits per sample.
        profile: the ICC profile of the colours, or what the file says in its place; None: they are sRGB.
        dropped: what the picture loses, or is uncertain about, in the words of `Picture.dropped`.
        damage: the damage that was ignored.
        key: the transparent colour as numbers of the file, if Pillow returns it wrongly.
        samples: how the numbers are read; None: as Pillow returns them.
        low: the low bytes of 16-bit colours, of which Pillow returns the high ones.
        orientation: the EXIF orientation; None: the image knows it.
        further: how many further pictures there are; None: the image knows it.
    """

    depth: int = 8
    profile: bytes | None = None
    dropped: list[str] = field(default_factory=list)
    damage: str = ""
    key: int | tuple[int, ...] | None = None
    samples: Samples | None = None
    low: Image.Image | None = None
    orientation: int | None = None
    further: int | None = None

    def name_colour(self, named: Named) -> None:
        """Take over the result of a named colour."""
        self.profile = named.profile
        self.dropped += [named.doubt] if named.doubt else []
