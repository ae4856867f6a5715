"""Codecs made for tests: their results are known beforehand, and other processes can import them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sprdiff.errors import TargetError
from sprdiff.evaluate.codecs.base import BudgetCodec, CodecError, ImageCodec, Quality, Scalar, Setting, Size
from sprdiff.evaluate.metrics.distortion import Bytes


@dataclass(frozen=True)
class Coarse(ImageCodec):
    """A codec that stores pixels in steps of 256 / (quality + 1), deflated; files of the qualities in `odd`
    are that much larger."""

    name: str = "coarse"
    odd: tuple[tuple[int, int], ...] = ()
    last: int = 60
    calls: list[tuple[tuple[int, ...], Quality]] = field(default_factory=list, compare=False)

    @property
    def qualities(self) -> Sequence[Quality]:
        return range(1, self.last + 1)

    def version(self) -> str:
        return "1"

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        self.calls.append((pixels.shape, quality))
        step = 256 / (quality + 1)
        steps = np.clip(np.rint(pixels / step), 0, 255).astype(np.uint8)
        head = np.array([*pixels.shape[:2], quality], "<u2").tobytes()
        return head + zlib.compress(steps.tobytes(), 1) + bytes(dict(self.odd).get(int(quality), 0))

    def decode(self, data: bytes) -> Bytes:
        height, width, quality = (int(value) for value in np.frombuffer(data[:6], "<u2"))
        steps = np.frombuffer(zlib.decompressobj().decompress(data[6:]), np.uint8).reshape(height, width, 3)
        return np.clip(np.rint(steps * (256 / (quality + 1))), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Wrong(Coarse):
    """A codec that does what the measuring process must survive."""

    how: str = ""

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "hang":
            subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)"])
        if self.how == "error":
            raise CodecError("wrong: cannot encode")
        if self.how == "bug":
            raise ZeroDivisionError("oh")
        data = super().encode(pixels, quality)
        return data + bytes(1000 * len(self.calls)) if self.how == "longer each time" else data

    def decode(self, data: bytes) -> Bytes:
        picture = super().decode(data)
        if self.how == "size":
            return picture[:-1]
        if self.how == "larger":
            return np.pad(picture, ((0, 1), (0, 1), (0, 0)))
        if self.how == "hungry":
            _fill_own_memory()
        if self.how == "hungry child":
            code = "x = bytearray(150_000_000); x[::1000] = bytes(150_000); import time; time.sleep(0.3)"
            subprocess.run([sys.executable, "-c", code], check=True)
        if self.how == "slow":
            _keep_busy(0.2)
        return picture


def _keep_busy(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() < start + seconds:
        pass


def _fill_own_memory() -> None:
    assert np.full(150_000_000, 1, np.uint8).any()


@dataclass(frozen=True)
class Budgeted(BudgetCodec):
    """A codec that fills a budget exactly, and has no file below 100 bytes."""

    name: str = "budgeted"

    @property
    def qualities(self) -> Sequence[Quality]:
        return range(1)

    def version(self) -> str:
        return "1"

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        return bytes(100)

    def decode(self, data: bytes) -> Bytes:
        return np.full((200, 200, 3), len(data) % 256, np.uint8)

    def encode_to(self, pixels: Bytes, budget: int) -> tuple[bytes, Setting]:
        if budget < 100:
            raise TargetError("too few", 100)
        return bytes(budget), {"level": budget}

    def encode_at(self, pixels: Bytes, setting: Mapping[str, Scalar]) -> bytes:
        return bytes(100)

    def decode_at(self, data: bytes, setting: Mapping[str, Scalar], size: Size) -> Bytes:
        return self.decode(data)
