"""sprdiff itself as a codec under comparison, through its public interface and with its own rate control."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...codec import Codec
from ...common.extras import hint
from ...errors import EffortError, SprdiffError
from ...fileinfo import model_info
from ...format.constants import LEVELS
from ...format.container import SCALES, parse_file
from ...limits import MAX_STEPS
from ...loading import manifest_of
from ...options import MAX_EFFORT, DecodeOptions, EncodeOptions
from ..metrics.distortion import Bytes
from .base import BudgetCodec, CodecError, MissingCodec, Quality, Scalar, Setting, Size, UnknownCodec, size_of

PREFIX = "sprdiff-"
_OPTIONS = f"@coarse, @realism=0…1, @steps=1…{MAX_STEPS}, @seed=N, @effort=0…{MAX_EFFORT}, @weights=DIR"


@dataclass(frozen=True)
class Sprdiff(BudgetCodec):
    """One set of weights at one effort and one setting of the decoder's dials, on one thread.

    Attributes:
        preset: the preset that the weights must have, such as ``tiny``.
        realism: the decoder's realism, from 0 (the coarse picture) to 1; None: what the weights say
            for the level of the file.
        weights: the folder of weights; None: those that come with the package.
        effort: the encoder's effort, 0-9; above 0 it needs torch.
        steps: the decoder's steps; None: what the weights say.
        seed: the seed of the decoder's noise.
    """

    name: str
    preset: str
    realism: float | None = None
    weights: str | None = None
    effort: int = 0
    steps: int | None = None
    seed: int = 0

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
            raise MissingCodec(f"{self.name} needs torch: {hint('train')}")
        realism = _told(manifest_of(self.weights).realism if self.realism is None else (self.realism,))
        parts = [f"sprdiff {__version__}", f"weights {about.networks}", f"realism {realism}"]
        parts += [f"effort {self.effort}"] if self.effort else []
        return ", ".join(parts + [f"{dial} {value}" for dial, value in self._other_dials.items()])

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        return self.encode_at(pixels, {"level": int(quality), "scale": 1.0})

    def decode(self, data: bytes) -> Bytes:
        try:
            dials = DecodeOptions(self.realism, self.steps, self.seed)
            return np.asarray(_loaded(self.weights).decode_with(data, dials).image.convert("RGB"))
        except (SprdiffError, ValueError) as error:  # ValueError: these networks do not have a dial
            raise CodecError(f"{self.name}: {error}") from error

    def encode_to(self, pixels: Bytes, budget: int) -> tuple[bytes, Setting]:
        try:
            data = _loaded(self.weights).encode(pixels, max_bytes=budget, effort=self.effort)
        except EffortError as error:  # these networks have no such dial
            raise CodecError(f"{self.name}: {error}") from error
        header = parse_file(data).header
        setting: Setting = {"level": header.level, "scale": float(SCALES[header.scale])}
        realism, _ = manifest_of(self.weights).dials(header.level, self.realism, self.steps)
        setting |= {"realism": realism, **self._other_dials}
        return data, setting | ({"effort": self.effort, "budget": budget} if self.effort else {})

    def encode_at(self, pixels: Bytes, setting: Mapping[str, Scalar]) -> bytes:
        """Encode at ``{"level": ..., "scale": ...}``, which `encode_to` has chosen.

        With an effort every level that was tried has another latent, so the choice is made again for the
        ``budget`` that the setting contains.
        """
        level, scale = setting["level"], setting["scale"]
        assert isinstance(level, int) and isinstance(scale, int | float)
        codec, budget = _loaded(self.weights), setting.get("budget")
        if self.effort and isinstance(budget, int):
            return codec.encode(pixels, max_bytes=budget, effort=self.effort)
        return codec.encode(pixels, quality=100.0 * level / (LEVELS - 1), scale=scale)

    def decode_at(self, data: bytes, setting: Mapping[str, Scalar], size: Size) -> Bytes:
        """Decode a file, which contains the picture's size."""
        picture = self.decode(data)
        if size_of(picture) != size:
            raise CodecError(f"{self.name} decoded a picture of another size than the original's")
        return picture

    @property
    def _other_dials(self) -> dict[str, int]:
        """The steps, if they are stated or are not one, and the seed, if it is not zero.

        Others are left out, so that results from before there were these dials are still recognised.
        """
        steps = manifest_of(self.weights).steps if self.steps is None else self.steps
        return {
            **({"steps": steps} if self.steps is not None or steps != 1 else {}),
            **({"seed": self.seed} if self.seed else {}),
        }


def _told(realism: Sequence[float]) -> str:
    """Return one realism for all levels as a number, and a table by level as its digest."""
    if len(set(realism)) == 1:
        return f"{realism[0]:g}"
    return f"by level ({hashlib.sha256(repr(realism).encode()).hexdigest()[:8]})"


def parse_sprdiff(spec: str) -> Sprdiff:
    """Read ``sprdiff-PRESET[@coarse][@realism=R][@steps=N][@seed=N][@effort=N][@weights=DIR]``.

    Raises:
        UnknownCodec: an option does not exist, or a value is out of its range.
    """
    base, *words = spec.split("@")
    codec = Sprdiff(spec, base.removeprefix(PREFIX))
    for word in words:
        key, _, value = word.partition("=")
        try:
            changes = {"realism": 0.0} if word == "coarse" else _option(key, value)
        except ValueError:
            raise UnknownCodec(f"{spec}: @{word} is none of {_OPTIONS}") from None
        codec = replace(codec, **changes)
    return codec


def _option(key: str, value: str) -> dict[str, Any]:
    """Check one option and return it.

    Raises:
        ValueError: there is no such option, or it has no such value.
    """
    if key == "weights" and value:
        return {key: str(Path(value).expanduser().absolute())}
    if key == "realism":
        return {key: DecodeOptions(realism=float(value)).realism}
    # The largest seed has twenty digits; int() would take long for a million of them.
    if key not in ("steps", "seed", "effort") or not (
        value.isascii() and value.isdigit() and len(value) <= 20
    ):
        raise ValueError(key)
    number = int(value)
    if key == "effort":
        EncodeOptions(effort=number)
    else:
        DecodeOptions(steps=number) if key == "steps" else DecodeOptions(seed=number)
    return {key: number}


@cache
def _loaded(weights: str | None) -> Codec:
    """Return the codec with its networks, which stay loaded as long as the process lives."""
    return Codec(weights, threads=1)
