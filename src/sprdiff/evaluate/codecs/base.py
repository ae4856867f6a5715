"""The interface of the codecs under comparison: pixels become the bytes of a whole file, and these bytes
become pixels.

::

    encode_at:  pixels ─► Lanczos, 1/factor ─► encode(quality) ─► bytes
    decode_at:  bytes ─► decode ─► Lanczos to the original's size (which the decoder is told for free)

Ordinary codecs only have `encode` at a quality; `evaluate.run.search` finds quality and factor for a budget
of bytes. A codec with its own rate control is a `BudgetCodec`.
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
    """A codec failed on an image, or returned something that is no picture of the right size."""


class MissingCodec(CodecError):  # noqa: N818
    """A codec cannot run here; the message says what has to be installed."""


class UnknownCodec(CodecError):  # noqa: N818
    """No codec has this name, or it has no such option."""


class ImageCodec(ABC):
    """A codec: bytes in, bytes out. It holds only its options and loaded libraries, and can be sent to
    another process.

    Attributes:
        name: its name in ``--codecs`` with its options: ``avif``, ``avif@speed=6``,
            ``sprdiff-tiny@realism=0``.
    """

    name: str

    @property
    @abstractmethod
    def qualities(self) -> Sequence[Quality]:
        """All qualities, from the smallest file to the largest (approximately: a few files may be smaller
        than the one before)."""

    @abstractmethod
    def version(self) -> str:
        """Return the library and its version, which every row of results contains.

        Raises:
            MissingCodec: see `missing`.
        """

    def missing(self) -> MissingCodec | None:
        """Return the error that says why this codec cannot run here, or None."""
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
        """Decode a file from its bytes alone; return the picture, uint8 RGB [H, W, 3].

        A codec that only knows even sizes returns one row or column more than was encoded.

        Raises:
            CodecError: it cannot be decoded.
        """

    def encode_at(self, pixels: Bytes, setting: Mapping[str, Scalar]) -> bytes:
        """Encode a picture at ``{"quality": ..., "factor": ...}``: it is made smaller by the factor and then
        encoded.

        Raises:
            CodecError: it cannot be encoded.
        """
        quality, factor = setting["quality"], setting["factor"]
        assert isinstance(quality, int | float) and isinstance(factor, int | float)
        return self.encode(resize(pixels, coded_size(size_of(pixels), factor)), quality)

    def decode_at(self, data: bytes, setting: Mapping[str, Scalar], size: Size) -> Bytes:
        """Decode a file that `encode_at` made; return the picture, uint8 RGB, enlarged to `size` (height,
        width).

        The decoder is told size and factor for free, which favours codecs whose files do not contain them.

        Raises:
            CodecError: it cannot be decoded, or has another size than what was encoded.
        """
        factor = setting["factor"]
        assert isinstance(factor, int | float)
        return resize(self._cropped(self.decode(data), coded_size(size, factor)), size)

    def _cropped(self, picture: Bytes, coded: Size) -> Bytes:
        if any(have - want not in (0, 1) for have, want in zip(picture.shape, coded, strict=False)):
            raise CodecError(
                f"{self.name} decoded {_text(size_of(picture))} pixels where {_text(coded)} were encoded"
            )
        return picture[: coded[0], : coded[1]]


class BudgetCodec(ImageCodec):
    """A codec with its own rate control."""

    @abstractmethod
    def encode_to(self, pixels: Bytes, budget: int) -> tuple[bytes, Setting]:
        """Return the best file of at most `budget` bytes, and the setting with which `encode_at` makes it
        again.

        Raises:
            TargetError: no file is that small; its attribute `smallest` says how small one can be.
            CodecError: it cannot be encoded.
        """


def coded_size(size: Size, factor: float) -> Size:
    """Divide (height, width) by a factor, round them, and make them at least 1."""
    height, width = (max(1, round(side / factor)) for side in size)
    return height, width


def size_of(pixels: Bytes) -> Size:
    """Return (height, width) of pixels [H, W, C]."""
    return pixels.shape[0], pixels.shape[1]


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
