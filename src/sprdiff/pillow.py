"""The Pillow plug-in: importing this module teaches `PIL.Image` to open and save ``.sprd`` files.

>>> import sprdiff.pillow  # or sprdiff.register_sprdiff_opener(...), with options
>>> Image.open("photo.sprd").save("photo.png")  # size and mode from the header; load() decodes
>>> Image.open("photo.jpg").save("photo.sprd", max_bytes=1200)

    Image.open ─► _open: header alone ─► [draft: a smaller coarse picture] ─► load ─► Codec.decode
    Image.save ─► _save: Codec.encode, the whole file in memory ─► one write

No network runtime is loaded before the first picture is decoded or saved.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import ExifTags, Image, ImageFile

from .errors import BitstreamError, PluginError, SprdiffError
from .format.container import HEAD, MAGIC, SCALES, Header, pack_file, parse_file, read_file, verify
from .imageio.xmp import XmpImage, source_info
from .interrupt import interruptible
from .limits import Deadline, above, size_message
from .options import CodecOptions, DecodeOptions

if TYPE_CHECKING:
    from .codec import Codec
    from .imageio.open import Picture

__all__ = ["SprdiffImageFile", "register_sprdiff_opener"]

FORMAT = "SPRDIFF"
MIME = "image/x-sprdiff"
EXTENSION = ".sprd"
MAX_PIXELS = 2**26
"""The default limit on width x height: 67 megapixels, three quarters of the size at which Pillow warns."""
MAX_SECONDS = 600.0
"""The default limit on the time for one picture; the largest picture takes some minutes."""

_SAVE_OPTIONS = ("quality", "bpp", "max_bytes", "scale", "background")
_codecs: dict[tuple[int, CodecOptions], Codec] = {}


@dataclass(frozen=True)
class _Options:
    """The options of the registration; `register_sprdiff_opener` describes them."""

    decode: DecodeOptions = field(default_factory=DecodeOptions)
    networks: CodecOptions = field(default_factory=lambda: CodecOptions(max_pixels=MAX_PIXELS))
    max_seconds: float = MAX_SECONDS

    def __post_init__(self) -> None:
        if not self.max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, not {self.max_seconds}")

    @property
    def codec(self) -> Codec:
        """The codec for these options. A new one loads nothing, so threads need no lock."""
        from .codec import Codec

        # A forked process, such as a worker of a data loader, has its parent's networks without the threads
        # that run them. It gets networks of its own, and keeps the parent's, because deleting them would wait
        # for those threads.
        return _codecs.setdefault((os.getpid(), self.networks), Codec.from_options(self.networks))


_options = _Options()


class SprdiffImageFile(XmpImage, ImageFile.ImageFile):
    """An open ``.sprd`` file.

    ``info["sprdiff"]`` contains fields of the header (``model``, ``quality``, ``level``, ``scale``) and the
    ``realism`` at which the pixels are or were decoded; None stands for the weights' own choice, until `load`
    has loaded them.

    ``info["xmp"]`` says to machines that the picture is partly invented, as IPTC's digital source type. It is
    there once the picture is loaded and its realism is above 0, and `save` writes it into PNG, JPEG, WebP,
    AVIF and TIFF.
    """

    format = FORMAT
    format_description = "SPRDiff (neural codec below 0.03 bits per pixel)"

    def _open(self) -> None:
        assert self.fp is not None
        self._options = _options
        self._start = self.fp.tell()
        try:
            header = parse_file(self.fp.read(HEAD)).header
        except BitstreamError as error:
            raise SyntaxError(
                str(error)
            ) from error  # a plug-in says like this that a file has another format
        limit = self._options.networks.max_pixels
        if above(header.width, header.height, limit):
            raise Image.DecompressionBombError(
                f"the picture has {size_message(header.width, header.height, limit)} "
                "(max_pixels of register_sprdiff_opener)"
            )
        self._mode = "L" if header.grey else "RGB"
        self._full = header.width, header.height
        self.info["sprdiff"] = _describe(header, self._options.decode.realism)
        self._expect(self._full)

    def _expect(self, size: tuple[int, int]) -> None:
        """Announce the pixels that `load` will return; once it has, ``tile`` is empty."""
        self._size = size
        self.tile = [ImageFile._Tile("raw", (0, 0, *size), 0, self.mode)]

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Prepare a smaller picture: if at most half the size is asked for, `load` decodes a coarse picture
        just above it.

        Its sides are those of the picture divided by a whole number, rounded up, and at least `size`.
        `thumbnail` calls this method. The mode never changes.

        Returns:
            The mode and the box (0, 0, width, height) of the new size; None if nothing changes.
        """
        if not self.tile or self.size != self._full or size is None:
            return None
        factor = min(side // max(1, asked) for side, asked in zip(self.size, size, strict=True))
        if factor < 2:
            return None
        width, height = (-(-side // factor) for side in self.size)
        self._expect((width, height))
        self.info["sprdiff"] = {**self.info["sprdiff"], "realism": 0.0}
        return self.mode, (0, 0, width, height)

    def load(self) -> Any:
        """Decode the picture, unless that has been done.

        Returns:
            Access to its pixels, as with Pillow's own formats.

        Raises:
            PluginError: an `OSError`: the file is damaged or cut off, or was made with other weights.
        """
        if self.tile:
            pixels = self._decode()
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = io.BytesIO(pixels)
        return super().load()

    def load_seek(self, pos: int) -> None:
        """Do nothing; because this method exists, `ImageFile.Parser` waits for the whole file."""

    def verify(self) -> None:
        """Test the file's check without running a network; as with other formats, call it right after
        opening.

        Raises:
            PluginError: an `OSError`: the file is damaged or cut off, or was made with other weights.
        """
        try:
            if self.tile:
                with _as_oserror():
                    data = self._read()
                    manifest = self._options.codec.manifest
                    verify(parse_file(data), data, manifest.weights_hash, manifest.preset_id)
        finally:
            super().verify()

    def _read(self) -> bytes:
        if self.fp is None:
            raise ValueError("Operation on closed image")
        from .loading import stride_of

        self.fp.seek(self._start)
        networks = self._options.networks
        return read_file(self.fp, networks.max_pixels, stride_of(networks.weights))  # type: ignore[arg-type]

    def _decode(self) -> bytes:
        """Return the pixels in the announced size and mode; zeros for a damaged file that Pillow is told
        to tolerate."""
        try:
            with _as_oserror():
                data, codec = self._read(), self._options.codec
                with interruptible(Deadline(self._options.max_seconds)):
                    picture = self._picture(data, codec)
        except PluginError as error:
            if ImageFile.LOAD_TRUNCATED_IMAGES and isinstance(error.__cause__, BitstreamError):
                return b""
            raise
        if (picture.mode, picture.size) != (self.mode, self.size):
            raise PluginError("the file has changed since it was opened")
        return picture.tobytes()

    def _picture(self, data: bytes, codec: Codec) -> Image.Image:
        if self.size != self._full:
            return _coarse(codec, data, self.size)
        picture = codec.decode_with(data, self._options.decode).image
        about = self.info["sprdiff"]
        realism, _ = codec.manifest.dials(about["level"], about["realism"], None)
        self.info.update(source_info(realism), sprdiff={**about, "realism": realism})
        return picture


def _describe(header: Header, realism: float | None) -> dict[str, Any]:
    return {
        "model": header.model,
        "quality": header.quality,
        "level": header.level,
        "scale": float(SCALES[header.scale]),
        "realism": realism,
    }


def _coarse(codec: Codec, data: bytes, size: tuple[int, int]) -> Image.Image:
    """Return the coarse picture in another size, (width, height), without enlarging it to the original's
    size first."""
    weights_hash = codec.manifest.weights_hash
    parsed = parse_file(data)
    verify(parsed, data, weights_hash, codec.manifest.preset_id)
    # The stream depends on the coded size only. With a header that states this size for the original, and
    # with a new check after the old one was right, it is a file of the coded picture.
    height, width = parsed.header.coded_size
    header = replace(parsed.header, width=width, height=height, scale=0)
    picture = codec.decode(pack_file(header, parsed.stream, weights_hash), realism=0)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _save(image: Image.Image, stream: IO[bytes], filename: str | bytes) -> None:
    """Write a file for `Image.save`; nothing is written before the whole file has been made."""
    given: dict[str, Any] = getattr(image, "encoderinfo", {})
    options = {name: given[name] for name in _SAVE_OPTIONS if given.get(name) is not None}
    if isinstance(options.get("quality"), str):  # such as JPEG's "keep"
        raise ValueError(f"quality must be a number from 0 to 100, not {options['quality']!r}")
    with _as_oserror():
        codec = _options.codec
        picture = _picture(image, given, options.pop("background", "white"), codec.max_pixels)
        with interruptible(Deadline(_options.max_seconds)):
            data = codec.encode(picture, **options)
    stream.write(data)


def _picture(image: Image.Image, given: dict[str, Any], background: Any, max_pixels: int) -> Picture:
    """Return the picture; its orientation is applied only if the caller passes it.

    Pillow's own formats do the same, because an image may have been turned upright and still have its old
    metadata.
    """
    from .imageio.colour import parse_background
    from .imageio.open import picture_of

    orientation = 1
    if given.get("exif"):
        exif = Image.Exif()
        exif.load(given["exif"].tobytes() if isinstance(given["exif"], Image.Exif) else given["exif"])
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    return picture_of(
        image,
        background=parse_background(background),
        max_pixels=max_pixels,
        orientation=orientation,
        profile=given.get("icc_profile", ...),
    )


@contextmanager
def _as_oserror() -> Iterator[None]:
    """Turn errors into `OSError`, which programs expect from a bad file."""
    try:
        yield
    except SprdiffError as error:
        if isinstance(error, ValueError):  # a wrong argument, for which Pillow raises the same
            raise
        raise PluginError(str(error)) from error


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def register_sprdiff_opener(
    *,
    realism: float | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    weights: Path | str | None = None,
    max_seconds: float = MAX_SECONDS,
) -> None:
    """Register ``.sprd`` with Pillow, or change the options for the files that are opened from now on.

    Args:
        realism: how pictures are decoded, 0 (faithful on average, blurred) to 1 (sharp, partly invented);
            None: what the weights say for the level of each file.
        threads: of the networks; None: one for each core.
        max_pixels: limit on width x height, both ways; opening a larger picture raises
            `Image.DecompressionBombError`. Pillow's own limit stays as it is.
        weights: a weights folder; None: the one that comes with the package.
        max_seconds: limit on the time of one picture, looked at between its tiles; beyond it `load` and
            `save` raise an `OSError`.

    Raises:
        ValueError: an option is out of its range.
    """
    global _options
    _options = _Options(DecodeOptions(realism), CodecOptions(weights, threads, max_pixels), max_seconds)
    Image.register_open(FORMAT, SprdiffImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME)


register_sprdiff_opener()
