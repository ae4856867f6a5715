"""The decoded pictures that a run has kept, beside their originals, as data URIs for the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sprdiff.errors import ImageError
from sprdiff.imageio.open import open_rgb
from sprdiff.imageio.resize import resize

from ..results import ImageInfo, Row, member
from ..targets import Target
from .data import Results
from .findings import main_metric

Bytes = NDArray[np.uint8]

MAX_SIDE = 1536
"""Larger pictures are made smaller, all of a scene alike, so that a phone can open the page."""
QUALITY = 90
"""The quality of the WebP pictures in the page; the figures are those of the decoded pictures themselves."""


@dataclass(frozen=True)
class Shot:
    """The picture of one codec at one rate: a data URI, its rate and its figures."""

    codec: str
    rate: Target
    uri: str
    caption: str


@dataclass(frozen=True)
class Scene:
    """One image in all its versions.

    Attributes:
        original: its data URI; None if the original cannot be found.
        shots: the pictures by rate, then in the order of the codecs.
    """

    image: str
    width: int
    height: int
    original: str | None
    shots: tuple[Shot, ...]


def scenes(
    results: Results, *, count: int, rates: Sequence[Target], originals: Path | None = None
) -> tuple[tuple[Scene, ...], tuple[str, ...]]:
    """Return scenes of some images, spread over the run, and notes about pictures that are missing.

    Args:
        count: the largest number of images.
        rates: the rates that are shown.
        originals: the folder of the originals; None: the one that the run has recorded.
    """
    kept = {info.name: _kept(results, info, rates) for info in results.run.images}
    most = max((len(rows) for rows in kept.values()), default=0)
    if not most or not count:
        return (), ("The run has kept no decoded pictures: sprdiff eval --keep does.",) if not most else ()
    infos = _spread([info for info in results.run.images if len(kept[info.name]) == most], count)
    notes: dict[str, None] = {}
    folder = Path(results.run.folder) if originals is None else originals
    made = []
    for info in infos:
        original = _original(info, folder, notes)
        shots = [shot for row in kept[info.name] if (shot := _shot(results, row, info, notes))]
        made.append(Scene(info.name, info.width, info.height, original, tuple(shots)))
    return tuple(scene for scene in made if scene.shots), tuple(notes)


def _kept(results: Results, info: ImageInfo, rates: Sequence[Target]) -> list[Row]:
    rows = [results.at(codec, rate).get(info.name) for rate in rates for codec in results.codecs]
    return [row for row in rows if row is not None and _path(results, row).is_file()]


def _path(results: Results, row: Row) -> Path:
    return member(results.folder, "images", row.codec, row.target, row.image, ".png")


def _spread(infos: Sequence[ImageInfo], count: int) -> list[ImageInfo]:
    """Return at most `count` images at even distances, because neighbours in name are often alike."""
    if len(infos) <= count:
        return list(infos)
    return [infos[(2 * i + 1) * len(infos) // (2 * count)] for i in range(count)]


def _original(info: ImageInfo, folder: Path, notes: dict[str, None]) -> str | None:
    path = folder / Path(info.name).name
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != info.sha256:
            raise ImageError("it is another file than the run's")
        return _uri(open_rgb(data).pixels, info)
    except (OSError, ImageError) as error:
        reason = "it cannot be read" if isinstance(error, OSError) else str(error)
        notes[f"The original {info.name} is not shown: {reason}."] = None
        return None


def _shot(results: Results, row: Row, info: ImageInfo, notes: dict[str, None]) -> Shot | None:
    try:
        uri = _uri(open_rgb(_path(results, row)).pixels, info)
    except ImageError as error:
        notes[f"{row.image} by {row.codec} is not shown: {error}."] = None
        return None
    metric = main_metric(results)
    figure = None if metric is None else row.metrics.get(metric.name)
    parts = [
        f"{row.bytes} bytes",
        f"{metric.title} {metric.text(figure)}" if metric and figure is not None else "",
    ]
    return Shot(row.codec, row.target, uri, ", ".join(filter(None, parts)))


def _uri(pixels: Bytes, info: ImageInfo) -> str:
    """Return the picture as a WebP in a data URI.

    Raises:
        ImageError: it does not have the size that the run has recorded.
    """
    height, width = pixels.shape[:2]
    if (width, height) != (info.width, info.height):
        raise ImageError(f"it has {width} x {height} pixels, not {info.width} x {info.height}")
    if max(width, height) > MAX_SIDE:
        ratio = MAX_SIDE / max(width, height)
        pixels = resize(pixels, (max(1, round(height * ratio)), max(1, round(width * ratio))))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
