"""Codecs and folders for the tests of comparisons; it is a module of its own, because worker processes import
it."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from PIL import Image

from sprdiff.evaluate.codecs.base import CodecError, ImageCodec, Quality
from sprdiff.evaluate.metrics.distortion import Bytes
from sprdiff.evaluate.results import CodecInfo, ImageInfo, MetricInfo, Row, Run

SIDE = 176


@dataclass(frozen=True)
class Toy(ImageCodec):
    """A codec that stores every Nth pixel, deflated.

    Attributes:
        fails_on: a file; while it exists every picture fails.
        dies_on: likewise, and the process is killed.
        counts_in: a file that grows by a byte with each encode.
    """

    name: str = "toy"
    number: str = "1"
    fails_on: Path | None = None
    dies_on: Path | None = None
    counts_in: Path | None = None

    @property
    def qualities(self) -> Sequence[Quality]:
        return (1, 2, 3, 4)

    def version(self) -> str:
        return f"toy {self.number}"

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        if self.dies_on and self.dies_on.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails_on and self.fails_on.exists():
            raise CodecError("toy is\nbroken")
        if self.counts_in:
            with open(self.counts_in, "ab") as file:
                file.write(b".")
        step = 32 >> int(quality)
        small = np.ascontiguousarray(pixels[::step, ::step])
        return bytes([step, pixels.shape[0], pixels.shape[1]]) + zlib.compress(small.tobytes())

    def decode(self, data: bytes) -> Bytes:
        step, height, width = data[:3]
        rows, columns = -(-height // step), -(-width // step)
        small = np.frombuffer(zlib.decompress(data[3:]), np.uint8).reshape(rows, columns, 3)
        return np.repeat(np.repeat(small, step, 0), step, 1)[:height, :width]


class Broken(Toy):
    """An exception that stands for a programming error in a codec."""

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        raise ZeroDivisionError("by nought")


def write_photos(folder: Path, count: int = 2, height: int = SIDE, width: int = SIDE) -> Path:
    """Write a folder of made-up photographs, ``a.png``, ``b.png`` …"""
    from conftest import photo  # worker processes do without

    folder.mkdir()
    for index in range(count):
        Image.fromarray(photo(height, width, seed=index)).save(folder / f"{chr(ord('a') + index)}.png")
    return folder


def a_row(**changes: Any) -> Row:
    row = Row(
        codec="toy",
        image="a.png",
        target_bpp=0.5,
        status="ok",
        message="",
        bytes=1000,
        bpp=0.25,
        width=160,
        height=200,
        setting={"quality": 3, "factor": 1.5},
        version="toy 1",
        metrics={"psnr": 22.25, "ms_ssim": None},
        encode_s=0.5,
        decode_s=0.25,
        peak_mb=12.5,
    )
    return replace(row, **changes)


def a_run(**changes: Any) -> Run:
    run = Run(
        format=1,
        sprdiff="1",
        python="3",
        platform="here",
        cpu="abacus",
        folder="/photos",
        images=[ImageInfo("a.png", 160, 200, "00ff")],
        rates=[0.5],
        codecs=[CodecInfo("toy", "toy 1")],
        skipped_codecs=[],
        metrics=[MetricInfo("psnr", "PSNR", "dB", "up", "known", "image", None)],
        skipped_metrics=[],
        commands=["sprdiff eval photos"],
    )
    return replace(run, **changes)
