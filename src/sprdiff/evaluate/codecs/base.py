"""What every codec under comparison looks like: pixels to the bytes of a whole file, and back from those bytes.

::

    encode_at:  pixels ─► Lanczos, 1/factor ─► encode(quality) ─► bytes
    decode_at:  bytes ─► decode ─► Lanczos to the original's size (which the receiver is told for free)

Ordinary codecs know only `encode` at a quality; `sprdiff.evaluate.run.search` finds quality and factor for a budget
of bytes. A codec with a rate control of its own is a `BudgetCodec`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from ...errors import SprdiffError
from ...imageio.resize import resize
from ..metrics.distortion import Bytes

Quality = int | float
Scalar = str | int | float | bool | None
Setting = dict[str, Scalar]
Size = tuple[int, int]


class CodecError(SprdiffError):
    """A codec failed on an image, or gave back something that is no picture of the right size."""


class MissingCodec(CodecError):  # noqa: N818
    """A codec cannot run here; the message names what would have to be installed."""


class UnknownCodec(CodecError):  # noqa: N818
    """Wrong usage: no codec has this name, or it has no such option."""


class ImageCodec(ABC):
    """Bytes in, bytes out. Holds nothing but its options and loaded libraries; can be sent to another process.

    Attributes:
        name: as in ``--codecs``, options and all: ``avif``, ``avif@speed=6``, ``sprdiff-tiny@realism=0``.
    """

    name: str

    @property
    @abstractmethod
    def qualities(self) -> Sequence[Quality]:
        """All qualities, from the smallest file to the largest (nearly so: files need not grow strictly)."""

    @abstractmethod
    def version(self) -> str:
        """Return the library and version, for every row of results.

        Raises:
            MissingCodec: see `missing`.
        """

    def missing(self) -> MissingCodec | None:
        """Return what keeps this codec from running here, or None."""
        try:
            self.version()
        except MissingCodec as error:
            return error
        return None

    @abstractmethod
    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        """Return the whole file of a picture, uint8 RGB [H, W, 3].

        Raises:
            CodecError: it cannot be encoded.
        """

    @abstractmethod
    def decode(self, data: bytes) -> Bytes:
        """Return the picture of a file, uint8 RGB [H, W, 3], from nothing but its bytes.

        A codec that knows even sizes only gives one row or column more than was encoded.

        Raises:
            CodecError: it cannot be decoded.
        """

    def encode_at(self, pixels: Bytes, setting: Mapping[str, Scalar]) -> bytes:
        """Return the whole file at ``{"quality": ..., "factor": ...}``: made smaller by the factor, then encoded.

        Raises:
            CodecError: it cannot be encoded.
        """
        quality, factor = setting["quality"], setting["factor"]
        assert isinstance(quality, int | float) and isinstance(factor, int | float)
        return self.encode(resize(pixels, coded_size(size_of(pixels), factor)), quality)

    def decode_at(self, data: bytes, setting: Mapping[str, Scalar], size: Size) -> Bytes:
        """Return the picture of a file made by `encode_at`, uint8 RGB, enlarged to `size` (height, width).

        Size and factor are given to the receiver for free, in favour of codecs whose files do not hold them.

        Raises:
            CodecError: it cannot be decoded, or is not of the size that was encoded.
        """
        factor = setting["factor"]
        assert isinstance(factor, int | float)
        return resize(self._cropped(self.decode(data), coded_size(size, factor)), size)

    def _cropped(self, picture: Bytes, coded: Size) -> Bytes:
        if any(have - want not in (0, 1) for have, want in zip(picture.shape, coded, strict=False)):
            raise CodecError(f"{self.name} decoded {_text(size_of(picture))} pixels where {_text(coded)} were encoded")
        return picture[: coded[0], : coded[1]]


class BudgetCodec(ImageCodec):
    """A codec with a rate control of its own."""

    @abstractmethod
    def encode_to(self, pixels: Bytes, budget: int) -> tuple[bytes, Setting]:
        """Return the best file of at most `budget` bytes, and the setting by which `encode_at` makes it again.

        Raises:
            TargetError: no file is that small; its `smallest` says how small one can be.
            CodecError: it cannot be encoded.
        """


def coded_size(size: Size, factor: float) -> Size:
    """Return (height, width) made smaller by a factor, rounded, at least 1."""
    height, width = (max(1, round(side / factor)) for side in size)
    return height, width


def size_of(pixels: Bytes) -> Size:
    """Return (height, width) of pixels [H, W, C]."""
    return pixels.shape[0], pixels.shape[1]


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
