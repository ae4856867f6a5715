"""What a file says beside the pixels that Pillow gives: filled in by `image_gather` and the modules of each format."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from .primaries import Named
from .samples import Samples


@dataclass
class Facts:
    """What a file says beside its pixels.

    Attributes:
        depth: bits of a sample.
        profile: ICC profile of the colours, or what the file says in its place; None: they are sRGB.
        dropped: what the picture will not have, or is in doubt about, in the words of `Picture.dropped`.
        damage: what is damaged and was passed over.
        key: the transparent colour in the numbers of the file, where Pillow gives it wrongly.
        samples: how numbers are to be read; None: as Pillow gives them.
        low: the low bytes of 16-bit colours, of which Pillow gives the high ones.
        orientation: as EXIF has it; None: ask the image.
        further: how many further pictures there are; None: ask the image.
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
        """Take over what a named colour comes to."""
        self.profile = named.profile
        self.dropped += [named.doubt] if named.doubt else []
