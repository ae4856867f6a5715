"""The unit of work of a comparison: one image through one codec at all its rates, in a process of its own."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...common.files import write_atomic
from ...errors import SprdiffError
from ...imageio.open import open_rgb
from ..codecs.base import ImageCodec
from ..metrics.distortion import Bytes
from ..metrics.rulers import Meter, Weights
from ..metrics.tensors import Features
from ..results import ImageInfo, Row, finite, member
from .measured import measure
from .search import Cache, Choice, best_at

ORIGINALS = "originals"


@dataclass(frozen=True)
class Unit:
    """What a worker needs to know.

    Attributes:
        codec, version: who encodes.
        folder, image: the original.
        rates: targets in bits per pixel.
        out: folder of the results.
        rulers: names of the metrics.
        weights: for them.
        keep: store files and decoded images.
    """

    codec: ImageCodec
    version: str
    folder: Path
    image: ImageInfo
    rates: tuple[float, ...]
    out: Path
    rulers: tuple[str, ...]
    weights: Weights
    keep: bool


def budget(rate: float, image: ImageInfo) -> int:
    """Most bytes that a file may have at a rate in bits per pixel."""
    return math.floor(rate * image.width * image.height / 8)


def run_unit(unit: Unit) -> list[Row]:
    """A row for each rate; what goes wrong with one is told in its row."""
    try:
        pixels = open_rgb(unit.folder / unit.image.name).pixels
        meter = _meter(unit.rulers, unit.weights)
        _describe_original(unit, meter, pixels)
    except Exception as error:
        return [failed(unit, rate, _explain(error)) for rate in unit.rates]
    known = Cache()
    return [_row(unit, rate, pixels, meter, known) for rate in unit.rates]


def failed(unit: Unit, rate: float, message: str) -> Row:
    """The row of what could not be done."""
    return _make_row(unit, rate, status="failed", message=" ".join(message.split()))


@cache
def _meter(rulers: tuple[str, ...], weights: Weights) -> Meter:
    return Meter(rulers, weights)


def _row(unit: Unit, rate: float, pixels: Bytes, meter: Meter, known: Cache) -> Row:
    try:
        choice = best_at(unit.codec, pixels, budget(rate, unit.image), known)
        if choice is None:
            return _unreached(unit, rate, known.smallest)
        return _measured(unit, rate, pixels, meter, choice)
    except Exception as error:  # one codec that fails on one image must not end a run of hours
        return failed(unit, rate, _explain(error))


def _measured(unit: Unit, rate: float, pixels: Bytes, meter: Meter, choice: Choice) -> Row:
    size = len(choice.data)
    assert size <= budget(rate, unit.image)
    figures = meter.figures(pixels, choice.decoded, {"ms_ssim": choice.ms_ssim})
    cost = measure(unit.codec, pixels, choice.setting, expected_bytes=size)
    if meter.describes_patches:
        save_features(_member(unit, "features", rate, ".npz"), meter.patches(choice.decoded))
    if unit.keep:
        _save(_member(unit, "files", rate, ".bin"), choice.data)
        _save(_member(unit, "images", rate, ".png"), _png(choice.decoded))
    return _make_row(
        unit,
        rate,
        bytes=size,
        setting=dict(choice.setting),
        metrics=finite(figures),
        encode_s=cost.encode_s,
        decode_s=cost.decode_s,
        peak_mb=None if cost.peak_bytes is None else cost.peak_bytes / 1e6,
    )


def _unreached(unit: Unit, rate: float, smallest: int | None) -> Row:
    limit = budget(rate, unit.image)
    message = f"no file is as small as {limit} bytes"
    if smallest is not None:
        message = f"the smallest file has {smallest} bytes, {limit} are allowed"
    return _make_row(unit, rate, status="unreached", message=message, bytes=smallest)


def _make_row(unit: Unit, rate: float, **given: Any) -> Row:
    width, height = unit.image.width, unit.image.height
    size = given.get("bytes")
    common: dict[str, Any] = {
        "codec": unit.codec.name,
        "image": unit.image.name,
        "target_bpp": rate,
        "status": "ok",
        "message": "",
        "bytes": None,
        "bpp": None if size is None else 8.0 * size / (width * height),
        "width": width,
        "height": height,
        "setting": {},
        "version": unit.version,
        "metrics": {},
        "encode_s": None,
        "decode_s": None,
        "peak_mb": None,
    }
    return Row(**common | given)


def _describe_original(unit: Unit, meter: Meter, pixels: Bytes) -> None:
    """Features of the original's patches; the first unit of an image makes them for all."""
    path = original_features(unit.out, unit.image.name)
    if meter.describes_patches and not path.exists():
        save_features(path, meter.patches(pixels))


def original_features(out: Path, image: str) -> Path:
    """Where the features of an original are."""
    return out / "features" / ORIGINALS / f"{Path(image).stem}.npz"


def save_features(path: Path, features: Mapping[str, Features]) -> None:
    """Write features by network; there they are whole, or not at all."""
    stream = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = dict(features)
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # mypy takes any name for the option allow_pickle
    _save(path, stream.getvalue())


def _member(unit: Unit, kind: str, rate: float, extension: str) -> Path:
    return member(unit.out, kind, unit.codec.name, rate, unit.image.name, extension)


def _save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data, force=True)


def _png(pixels: Bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _explain(error: Exception) -> str:
    if isinstance(error, SprdiffError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected {type(error).__name__}: {error}"
