"""The unit of work of a comparison: one image goes through one codec at all its targets, in a process of
its own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...common.files import write_atomic
from ...common.messages import explain
from ...imageio.open import open_rgb
from ..codecs.base import ImageCodec
from ..metrics.catalogue import Meter, Weights
from ..metrics.distortion import Bytes
from ..metrics.tensors import Features
from ..results import ImageInfo, Row, finite, member
from ..targets import Target
from .measured import measure
from .search import Choice, Trials, best_at

ORIGINALS = "originals"


@dataclass(frozen=True)
class Unit:
    """What a worker has to do.

    Attributes:
        codec: the codec.
        version: its version.
        folder: the folder of originals.
        image: the original.
        targets: the targets.
        out: the folder of results.
        metrics: the names of the metrics.
        weights: the weights of the metrics.
        keep: whether files and decoded images are stored.
    """

    codec: ImageCodec
    version: str
    folder: Path
    image: ImageInfo
    targets: tuple[Target, ...]
    out: Path
    metrics: tuple[str, ...]
    weights: Weights
    keep: bool


def run_unit(unit: Unit) -> list[Row]:
    """Return a row for each target; if something goes wrong, the row says what."""
    try:
        pixels = open_rgb(unit.folder / unit.image.name).pixels
        meter = _meter(unit.metrics, unit.weights)
        _describe_original(unit, meter, pixels)
    except Exception as error:
        return [failed(unit, target, explain(error)) for target in unit.targets]
    known = Trials()
    return [_row(unit, target, pixels, meter, known) for target in unit.targets]


def failed(unit: Unit, target: Target, message: str) -> Row:
    """Return the row of a target that failed."""
    return _make_row(unit, target, status="failed", message=" ".join(message.split()))


@cache
def _meter(metrics: tuple[str, ...], weights: Weights) -> Meter:
    return Meter(metrics, weights)


def _row(unit: Unit, target: Target, pixels: Bytes, meter: Meter, known: Trials) -> Row:
    try:
        choice = best_at(unit.codec, pixels, target.budget(unit.image.width, unit.image.height), known)
        if choice is None:
            return _unreached(unit, target, known.smallest)
        return _measured(unit, target, pixels, meter, choice)
    except Exception as error:  # one codec that fails on one image must not stop a run of hours
        return failed(unit, target, explain(error))


def _measured(unit: Unit, target: Target, pixels: Bytes, meter: Meter, choice: Choice) -> Row:
    size = len(choice.data)
    assert size <= target.budget(unit.image.width, unit.image.height)
    figures = meter.figures(pixels, choice.decoded, {"ms_ssim": choice.ms_ssim})
    cost = measure(unit.codec, pixels, choice.setting, expected_bytes=size)
    if meter.describes_patches:
        save_features(_member(unit, "features", target, ".npz"), meter.patches(choice.decoded))
    if unit.keep:
        _save(_member(unit, "files", target, ".bin"), choice.data)
        _save(_member(unit, "images", target, ".png"), _png(choice.decoded))
    return _make_row(
        unit,
        target,
        bytes=size,
        setting=dict(choice.setting),
        metrics=finite(figures),
        encode_s=cost.encode_s,
        decode_s=cost.decode_s,
        peak_mb=None if cost.peak_bytes is None else cost.peak_bytes / 1e6,
    )


def _unreached(unit: Unit, target: Target, smallest: int | None) -> Row:
    limit = target.budget(unit.image.width, unit.image.height)
    message = f"no file is as small as {limit} bytes"
    if smallest is not None:
        message = f"the smallest file has {smallest} bytes, {limit} are allowed"
    return _make_row(unit, target, status="unreached", message=message, bytes=smallest)


def _make_row(unit: Unit, target: Target, **given: Any) -> Row:
    width, height = unit.image.width, unit.image.height
    size = given.get("bytes")
    common: dict[str, Any] = {
        "codec": unit.codec.name,
        "image": unit.image.name,
        "target_bpp": target.bpp,
        "target_bytes": target.bytes,
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
    """Store the features of the original's patches; the first unit of an image does it for all."""
    path = original_features(unit.out, unit.image.name)
    if meter.describes_patches and not path.exists():
        save_features(path, meter.patches(pixels))


def original_features(out: Path, image: str) -> Path:
    """Return the path of the features of an original."""
    return out / "features" / ORIGINALS / f"{Path(image).stem}.npz"


def save_features(path: Path, features: Mapping[str, Features]) -> None:
    """Write the features of each network; the file is written completely or not at all."""
    stream = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = dict(features)
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # mypy takes any name for the option allow_pickle
    _save(path, stream.getvalue())


def _member(unit: Unit, kind: str, target: Target, extension: str) -> Path:
    return member(unit.out, kind, unit.codec.name, target, unit.image.name, extension)


def _save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data, force=True)


def _png(pixels: Bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
