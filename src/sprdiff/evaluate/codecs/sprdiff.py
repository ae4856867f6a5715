"""sprdiff itself as a codec under comparison, through its public interface and with its own rate control."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ... import __version__
from ...codec import Codec
from ...common.extras import hint
from ...errors import EffortError, SprdiffError
from ...fileinfo import model_info
from ...format.constants import LEVELS
from ...format.container import SCALES, parse_file
from ...limits import MAX_STEPS
from ...options import MAX_EFFORT, DecodeOptions, EncodeOptions
from ..metrics.distortion import Bytes
from .base import BudgetCodec, CodecError, MissingCodec, Quality, Scalar, Setting, Size, UnknownCodec, size_of

PREFIX = "sprdiff-"
_OPTIONS = f"@coarse, @realism=0…1, @steps=1…{MAX_STEPS}, @seed=N, @effort=0…{MAX_EFFORT}, @weights=DIR"


class Dials(TypedDict):
    """The arguments of `Codec.decode` beside the file."""

    realism: float
    steps: int
    seed: int


@dataclass(frozen=True)
class Sprdiff(BudgetCodec):
    """One set of weights at one effort and one setting of the decoder's dials, on one thread.

    Attributes:
        preset: the preset that the weights must have, such as ``tiny``.
        realism: the decoder's realism, from 0 (the coarse picture) to 1; None: see `default_dials`.
        weights: the folder of weights; None: those that come with the package.
        effort: the encoder's effort, 0-9; above 0 it needs torch.
        steps: the decoder's steps; None: see `default_dials`.
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
        parts = [f"sprdiff {__version__}", f"weights {about.networks}", f"realism {self._dials['realism']:g}"]
        parts += [f"effort {self.effort}"] if self.effort else []
        return ", ".join(parts + [f"{dial} {value}" for dial, value in self._turned.items()])

    def encode(self, pixels: Bytes, quality: Quality) -> bytes:
        return self.encode_at(pixels, {"level": int(quality), "scale": 1.0})

    def decode(self, data: bytes) -> Bytes:
        try:
            return np.asarray(_loaded(self.weights).decode(data, **self._dials).convert("RGB"))
        except (
            SprdiffError,
            ValueError,
        ) as error:  # a ValueError means that these networks do not have a dial
            raise CodecError(f"{self.name}: {error}") from error

    def encode_to(self, pixels: Bytes, budget: int) -> tuple[bytes, Setting]:
        try:
            data = _loaded(self.weights).encode(pixels, max_bytes=budget, effort=self.effort)
        except EffortError as error:  # these networks have no such dial
            raise CodecError(f"{self.name}: {error}") from error
        header = parse_file(data).header
        setting: Setting = {"level": header.level, "scale": float(SCALES[header.scale])}
        setting |= {"realism": self._dials["realism"], **self._turned}
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
    def _dials(self) -> Dials:
        """The arguments of the decoder."""
        dials = default_dials(self.weights)
        if self.realism is not None:
            dials["realism"] = self.realism
        if self.steps is not None:
            dials["steps"] = self.steps
        return {**dials, "seed": self.seed}

    @property
    def _turned(self) -> dict[str, int]:
        """The steps and the seed that the name states; without them the name stays as it was before these
        dials existed."""
        return {
            **({} if self.steps is None else {"steps": self.steps}),
            **({"seed": self.seed} if self.seed else {}),
        }


def default_dials(weights: str | None) -> Dials:
    """Return the realism and the steps of a decoder that is not told any.

    Evaluation asks here only. The manifests of today state no dials, so they are the defaults of
    `Codec.decode`, whatever the weights are.
    """
    return {"realism": 1.0, "steps": 1, "seed": 0}


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
