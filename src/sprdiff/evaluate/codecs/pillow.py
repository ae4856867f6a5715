"""JPEG, WebP, AVIF, JPEG 2000 and HEIC by Pillow and its plug-in, each with the settings that suit it best
here.

The best settings give the highest MS-SSIM within a budget of bytes; they were tried on photographs of Kodak
at about 0.02 bits per pixel. What is optional in a container is omitted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import PIL
from PIL import Image, features

from ...common.extras import need
from ..metrics.distortion import Bytes
from .base import CodecError, ImageCodec, MissingCodec, Quality


class PillowCodec(ImageCodec):
    """A format that Pillow reads and writes."""

    format: str
    feature: str

    def version(self) -> str:
        if not features.check(self.feature):
            raise MissingCodec(
                f"{self.name}: this Pillow was built without it; pip install --upgrade Pillow brings it"
            )
        number = features.version(self.feature)
        return f"Pillow {PIL.__version__}, {self.feature} {number}"

    def decode(self, data: bytes) -> Bytes:
        try:
            with Image.open(io.BytesIO(data), formats=[self.format]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise CodecError(f"{self.name} cannot be decoded: {error}") from error

    def _saved(self, pixels: Bytes, **options: Any) -> bytes:
        stream = io.BytesIO()
        try:
            Image.fromarray(pixels).save(stream, self.format, **options)
        except (OSError, ValueError) as error:
            raise CodecError(f"{self.name} cannot encode: {error}") from error
        return stream.getvalue()


@dataclass(frozen=True)
class Jpeg(PillowCodec):
    """JPEG with optimised Huffman tables; baseline or progressive, whichever file is smaller (the picture
    is the same)."""

    name: str = "jpeg"
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0"
    format = "JPEG"
    feature = "libjpeg_turbo"

    @property
    def qualities(self) -> Sequence[Quality]:
        return range(1, 96)

    def version(self) -> str:
        return f"Pillow {PIL.__version__}, libjpeg {features.version('jpg')}"

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        both = [
            self._saved(
                pixels, quality=quality, subsampling=self.subsampling, optimize=True, progressive=progressive
            )
            for progressive in (False, True)
        ]
        return min(both, key=len)


@dataclass(frozen=True)
class WebP(PillowCodec):
    """Lossy WebP with the slowest method."""

    name: str = "webp"
    method: Literal[0, 1, 2, 3, 4, 5, 6] = 6
    sharp: Literal["no", "yes"] = "no"
    format = "WEBP"
    feature = "webp"

    @property
    def qualities(self) -> Sequence[Quality]:
        # Just above 0 files grow fastest: whole numbers would leave gaps of 50 %.
        return [*(i / 20 for i in range(20)), *(i / 4 for i in range(4, 40)), *range(10, 101)]

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        return self._saved(pixels, quality=quality, method=self.method, use_sharp_yuv=self.sharp == "yes")


@dataclass(frozen=True)
class Avif(PillowCodec):
    """AVIF by libaom, 8 bits, on one thread."""

    name: str = "avif"
    speed: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] = 2
    tune: Literal["ssim", "psnr", "iq", "ssimulacra2"] = "ssim"
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0"
    format = "AVIF"
    feature = "avif"

    @property
    def qualities(self) -> Sequence[Quality]:
        # libavif maps 0-100 to quantizers 63-0; there is one quality for each.
        return [*{(63 * (100 - quality) + 50) // 100: quality for quality in range(101)}.values()]

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        options = {"speed": self.speed, "subsampling": self.subsampling, "advanced": {"tune": self.tune}}
        return self._saved(pixels, quality=quality, codec="aom", max_threads=1, **options)


@dataclass(frozen=True)
class Jpeg2000(PillowCodec):
    """JPEG 2000 by OpenJPEG: 9/7 wavelet, a bare codestream; a quality is the compression ratio."""

    name: str = "jpeg2000"
    format = "JPEG2000"
    feature = "jpg_2000"

    @property
    def qualities(self) -> Sequence[Quality]:
        return [round(4000 * 0.97**step, 3) for step in range(230)]

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        rate = {"quality_mode": "rates", "quality_layers": [quality]}
        return self._saved(pixels, irreversible=True, no_jp2=True, mct=1, **rate)


@dataclass(frozen=True)
class Heic(ImageCodec):
    """HEIC by libheif and x265, in 4:4:4, because the coded pictures are small already."""

    name: str = "heic"
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:4:4"
    preset: Literal["medium", "slow", "slower", "veryslow", "placebo"] = "veryslow"
    tune: Literal["ssim", "psnr"] = "ssim"

    @property
    def qualities(self) -> Sequence[Quality]:
        return range(101)

    def version(self) -> str:
        heif = _pillow_heif(self.name)
        about = heif.libheif_info()
        if "x265" not in about["encoders"]:
            raise MissingCodec(
                f"{self.name}: no x265 in pillow-heif; pip install --upgrade pillow-heif brings it"
            )
        return f"pillow-heif {heif.__version__}, libheif {about['libheif']}, {about['encoders']['x265']}"

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        heif = _pillow_heif(self.name)
        height, width = pixels.shape[:2]
        image = heif.from_bytes("RGB", (width, height), np.ascontiguousarray(pixels).tobytes())
        stream = io.BytesIO()
        options = {"chroma": int(self.subsampling.replace(":", "")), "save_nclx_profile": False}
        try:
            image.save(
                stream, quality=quality, enc_params={"preset": self.preset, "tune": self.tune}, **options
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CodecError(f"{self.name} cannot encode: {error}") from error
        return stream.getvalue()

    def decode(self, data: bytes) -> Bytes:
        heif = _pillow_heif(self.name)
        try:
            return np.asarray(heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB"))
        except (OSError, ValueError, RuntimeError, SyntaxError, EOFError) as error:
            raise CodecError(f"{self.name} cannot be decoded: {error}") from error


@cache
def _pillow_heif(name: str) -> Any:
    return need("pillow_heif", "eval", MissingCodec, what=name)
