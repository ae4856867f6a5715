"""VVC and JPEG XL with the ffmpeg that imageio-ffmpeg contains, through pipes and on one thread."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

from ...common.extras import need
from ..metrics.distortion import Bytes
from .base import CodecError, ImageCodec, MissingCodec, Quality

TIMEOUT = 600.0
"""The seconds after which a run of ffmpeg is killed."""

_BEST_SCALING = "lanczos+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"


class FfmpegCodec(ImageCodec):
    """A codec of ffmpeg; `encoder` is its name in ``ffmpeg -encoders``, `container` the format of the bare
    stream."""

    encoder: str
    container: str

    def version(self) -> str:
        return f"ffmpeg {_ffmpeg_version(self.name)}, {_encoder_version(self.name, self.encoder)}"

    def decode(self, data: bytes) -> Bytes:
        output = ["-frames:v", "1", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe"]
        picture = self._run(["-f", self.container, "-i", "-", "-sws_flags", _BEST_SCALING, *output], data)
        try:
            with Image.open(io.BytesIO(picture), formats=["PPM"]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise CodecError(f"{self.name} cannot be decoded: {error}") from error

    def _encoded(self, pixels: Bytes, options: Sequence[str]) -> bytes:
        height, width = pixels.shape[:2]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-"]
        output = ["-frames:v", "1", "-c:v", self.encoder, "-threads", "1", *options]
        return self._run([*raw, "-sws_flags", _BEST_SCALING, *output], np.ascontiguousarray(pixels).tobytes())

    def _run(self, arguments: Sequence[str], data: bytes) -> bytes:
        try:
            quiet = [
                "-hide_banner",
                "-nostdin",
                "-loglevel",
                "error",
                "-threads",
                "1",
                "-filter_threads",
                "1",
            ]
            done = subprocess.run(
                [_ffmpeg(self.name), *quiet, *arguments, "-"],
                input=data,
                capture_output=True,
                timeout=TIMEOUT,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CodecError(f"{self.name}: {error}") from error
        if done.returncode or not done.stdout:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise CodecError(f"{self.name}: ffmpeg failed: {lines[-1] if lines else 'no output'}")
        return done.stdout


@dataclass(frozen=True)
class JpegXl(FfmpegCodec):
    """JPEG XL by libjxl: lossy in XYB, a bare codestream; a quality is the Butteraugli distance, at most 15.

    (pylibjxl 0.5 goes to 25 but codes without XYB, with several times the bytes for the same error.)
    """

    name: str = "jxl"
    effort: Literal[1, 2, 3, 4, 5, 6, 7, 8, 9] = 9
    encoder = "libjxl"
    container = "jpegxl_pipe"

    @property
    def qualities(self) -> Sequence[Quality]:
        return [round(15 * 0.96**step, 3) for step in range(100)]

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        return self._encoded(
            pixels, ["-distance", str(quality), "-effort", str(self.effort), "-f", "image2pipe"]
        )


@dataclass(frozen=True)
class Vvc(FfmpegCodec):
    """VVC by vvenc: 10 bits, 4:2:0, constant QP, without the perceptual adaptation that lowers PSNR and
    MS-SSIM.

    The file is the raw stream of one intra picture. As vvenc is told that no other pictures follow, it omits
    lists of reference pictures and the delimiter, which take 170 of about 1000 bytes with ffmpeg's defaults.

    Sides are made even by repeating the last row or column, which stays in the decoded picture:
    `ImageCodec.decode_at` knows the size and cuts it off.
    """

    name: str = "vvc"
    preset: Literal["faster", "fast", "medium", "slow", "slower"] = "medium"
    encoder = "libvvenc"
    container = "vvc"

    @property
    def qualities(self) -> Sequence[Quality]:
        return range(63, 9, -1)

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        still = ["-qpa", "0", "-vvenc-params", "IntraPeriod=1:GOPSize=1:AccessUnitDelimiter=0"]
        options = [
            "-pix_fmt",
            "yuv420p10le",
            "-preset",
            self.preset,
            "-qp",
            str(quality),
            *still,
            "-f",
            "vvc",
        ]
        return self._encoded(even, options)


@cache
def _ffmpeg(name: str) -> str:
    try:
        return str(need("imageio_ffmpeg", "eval", MissingCodec, what=name).get_ffmpeg_exe())
    except RuntimeError as error:  # the package contains no program for this machine
        raise MissingCodec(f"{name}: {error}") from error


def _output(name: str, *arguments: str) -> str:
    """Return what ffmpeg writes to either stream."""
    try:
        done = subprocess.run([_ffmpeg(name), "-nostdin", *arguments], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingCodec(f"{name}: ffmpeg does not run: {error}") from error
    return (done.stdout + done.stderr).decode("utf-8", "replace")


@cache
def _ffmpeg_version(name: str) -> str:
    found = re.search(r"ffmpeg version (\S+)", _output(name, "-version"))
    return found[1] if found else "of unknown version"


@cache
def _encoder_version(name: str, encoder: str) -> str:
    """Return the library's own version if it prints one, as vvenc does when it starts to encode."""
    source = ["-f", "lavfi", "-i", "color=s=64x64", "-frames:v", "1", "-c:v", encoder]
    text = _output(name, "-hide_banner", *source, "-f", "null", "-")
    if "Unknown encoder" in text:
        raise MissingCodec(
            f"{name}: this ffmpeg has no {encoder}; pip install 'sprdiff[eval]' brings another"
        )
    found = re.search(rf"{encoder} version: (\S+)", text)
    return f"{encoder} {found[1]}" if found else encoder
