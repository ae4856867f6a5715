"""Figures of whole sets: all images of one codec at one target, compared with all originals."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ...errors import SprdiffError
from ..metrics.catalogue import SET_METRICS, SetMetric
from ..metrics.tensors import Features
from ..results import ResultsError, Row, Run, SetRow, finite, member
from ..targets import Target
from .unit import original_features

Load = Callable[[str], Features]


def set_rows(
    folder: Path,
    run: Run,
    rows: Collection[Row],
    *,
    before: Sequence[SetRow],
    changed: Collection[tuple[str, Target]],
) -> list[SetRow]:
    """Return a `SetRow` for each codec and target that has rows; an empty list if no set metric is in use.

    Args:
        folder: the folder of results, with the features of patches.
        run: what was run into it.
        rows: all rows.
        before: earlier figures; they are kept if nothing has changed.
        changed: the codecs and targets with new rows.
    """
    names = {info.name for info in run.metrics}
    metrics = [metric for metric in SET_METRICS if metric.name in names]
    counts = _counts(run, rows)
    kept = {(old.codec, old.target): old for old in before}
    originals = _originals(folder, run)
    found = []
    for (codec, target), images in counts.items() if metrics else ():
        old = kept.get((codec, target))
        if old is not None and old.images == images and (codec, target) not in changed:
            found.append(old)
        else:
            found.append(_set_row(folder, run, metrics, codec, target, images, originals))
    return found


def _counts(run: Run, rows: Collection[Row]) -> dict[tuple[str, Target], int]:
    """Count the images that are ok, by codec and target, in the order of the run."""
    counts = {(codec.name, target): 0 for codec in run.codecs for target in run.targets}
    for row in rows:
        if (row.codec, row.target) in counts:
            counts[row.codec, row.target] += row.status == "ok"
    met = {(row.codec, row.target) for row in rows}
    return {key: count for key, count in counts.items() if key in met}


def _set_row(
    folder: Path,
    run: Run,
    metrics: Sequence[SetMetric],
    codec: str,
    target: Target,
    images: int,
    originals: Load,
) -> SetRow:
    patches: dict[str, int] = {}
    values: dict[str, float] = {}
    notes: dict[str, str] = {}
    missing = len(run.images) - images
    for metric in metrics:
        try:
            if missing:
                raise SprdiffError(f"{missing} of {len(run.images)} images are missing")
            paths = (member(folder, "features", codec, target, image.name, ".npz") for image in run.images)
            decoded = _joined(paths, metric.network)
            patches[metric.name] = len(decoded)
            values[metric.name] = metric.distance(originals(metric.network), decoded)
        except SprdiffError as error:
            notes[metric.name] = str(error)
    known = finite(values)
    figures = {metric.name: known.get(metric.name) for metric in metrics}
    return SetRow(codec, target.bpp, images, patches, figures, notes, target.bytes)


def _originals(folder: Path, run: Run) -> Load:
    """Return a function that loads the features of all originals of a network on first use."""

    @cache
    def load(network: str) -> Features:
        return _joined((original_features(folder, image.name) for image in run.images), network)

    return load


def _joined(paths: Iterator[Path], network: str) -> Features:
    return np.concatenate([_read(path, network) for path in paths])


def _read(path: Path, network: str) -> Features:
    try:
        # Opened here, because numpy leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            features: Features = arrays[network]
            return features
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ResultsError(f"{path} is missing or damaged") from error
