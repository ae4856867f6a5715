"""sprdiff itself under comparison, by its public interface and its own rate control."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ... import __version__
from ...codec import MAX_EFFORT, Codec
from ...errors import EffortError, SprdiffError
from ...fileinfo import model_info
from ...format.container import SCALES, parse_file
from ..metrics.distortion import Bytes
from .base import BudgetCodec, CodecError, MissingCodec, Quality, Scalar, Setting, Size, UnknownCodec, size_of

PREFIX = "sprdiff-"
LEVELS = 256
EFFORTS = tuple(str(effort) for effort in range(MAX_EFFORT + 1))


@dataclass(frozen=True)
class Sprdiff(BudgetCodec):
    """One set of weights at one realism and effort, on one thread.

    Attributes:
        preset: that the weights must have, such as ``tiny``.
        realism: of the decoder: 0 (the coarse picture) to 1.
        weights: folder; None: the one that comes with the package.
        effort: of the encoder, 0-9; above 0 it needs torch.
    """

    name: str
    preset: str
    realism: float = 1.0
    weights: str | None = None
    effort: int = 0

    @property
    def qualities(self) -> Sequence[Quality]:
        """The levels, at scale 1; `encode_to` does not use them."""
        return range(LEVELS)

    def version(self) -> str:
        about = model_info(self.weights)
        if about.preset != self.preset:
            more = "" if self.weights else f"; give {self.name}@weights=DIR"
            raise UnknownCodec(f"{self.name}: these weights are of the preset {about.preset}{more}")
        if self.effort and importlib.util.find_spec("torch") is None:
            raise MissingCodec(f"{self.name} needs torch: pip install 'sprdiff[train]'")
        effort = f", effort {self.effort}" if self.effort else ""
        return f"sprdiff {__version__}, weights {about.networks}, realism {self.realism:g}{effort}"

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        return self.encode_at(pixels, {"level": int(quality), "scale": 1.0})

    def decode(self, data: bytes) -> Bytes:
        try:
            return np.asarray(_loaded(self.weights).decode(data, realism=self.realism).convert("RGB"))
        except SprdiffError as error:
            raise CodecError(f"{self.name}: {error}") from error

    def encode_to(self, pixels: Bytes, budget: int) -> tuple[bytes, Setting]:
        try:
            data = _loaded(self.weights).encode(pixels, max_bytes=budget, effort=self.effort)
        except EffortError as error:  # these networks have none
            raise CodecError(f"{self.name}: {error}") from error
        header = parse_file(data).header
        setting: Setting = {"level": header.level, "scale": float(SCALES[header.scale]), "realism": self.realism}
        return data, setting | ({"effort": self.effort, "budget": budget} if self.effort else {})

    def encode_at(self, pixels: Bytes, setting: Mapping[str, Scalar]) -> bytes:
        """The file at ``{"level": ..., "scale": ...}``, which `encode_to` has chosen.

        Refined, a picture has another latent for every level that was looked at: then it is chosen again, for the
        ``budget`` that the setting names.
        """
        level, scale = setting["level"], setting["scale"]
        assert isinstance(level, int) and isinstance(scale, int | float)
        codec, budget = _loaded(self.weights), setting.get("budget")
        if self.effort and isinstance(budget, int):
            return codec.encode(pixels, max_bytes=budget, effort=self.effort)
        return codec.encode(pixels, quality=100.0 * level / (LEVELS - 1), scale=scale)

    def decode_at(self, data: bytes, setting: Mapping[str, Scalar], size: Size) -> Bytes:
        """The picture; its size stands in the file."""
        picture = self.decode(data)
        if size_of(picture) != size:
            raise CodecError(f"{self.name} decoded a picture of another size than the original's")
        return picture


def parse_sprdiff(spec: str) -> Sprdiff:
    """``sprdiff-PRESET[@coarse][@realism=R][@effort=N][@weights=DIR]``.

    Raises:
        UnknownCodec: another option, a realism that is not from 0 to 1, or an effort that is not from 0 to 9.
    """
    base, *words = spec.split("@")
    realism, weights, effort = 1.0, None, 0
    for word in words:
        key, _, value = word.partition("=")
        if word == "coarse":
            realism = 0.0
        elif key == "realism" and _is_realism(value):
            realism = float(value)
        elif key == "effort" and value in EFFORTS:
            effort = int(value)
        elif key == "weights" and value:
            weights = str(Path(value).expanduser().absolute())
        else:
            raise UnknownCodec(f"{spec}: @{word} is none of @coarse, @realism=0…1, @effort=0…9, @weights=DIR")
    return Sprdiff(spec, base.removeprefix(PREFIX), realism, weights, effort)


def _is_realism(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and 0 <= value <= 1


@cache
def _loaded(weights: str | None) -> Codec:
    """Networks stay loaded for the life of a process; the codec that is sent to it does not carry them."""
    return Codec(weights, threads=1)
