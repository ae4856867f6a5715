"""Figures of whole sets: all images through one codec at one target, against all originals."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ...errors import SprdiffError
from ..metrics.rulers import SET_RULERS, SetRuler
from ..metrics.tensors import Features
from ..results import ResultsError, Row, Run, SetRow, finite, member
from ..targets import Target
from .unit import original_features

Load = Callable[[str], Features]


def set_rows(
    folder: Path, run: Run, rows: Collection[Row], *, before: Sequence[SetRow], changed: Collection[tuple[str, Target]]
) -> list[SetRow]:
    """One `SetRow` for each codec and target that has rows; empty where no set ruler is in use.

    Args:
        folder: of the results, with the features of patches.
        run: what was run into it.
        rows: all there are.
        before: earlier figures, kept where nothing has changed.
        changed: codec and target of what has been added since.
    """
    names = {info.name for info in run.rulers}
    rulers = [ruler for ruler in SET_RULERS if ruler.name in names]
    counts = _counts(run, rows)
    kept = {(old.codec, old.target): old for old in before}
    originals = _originals(folder, run)
    found = []
    for (codec, target), images in counts.items() if rulers else ():
        old = kept.get((codec, target))
        if old is not None and old.images == images and (codec, target) not in changed:
            found.append(old)
        else:
            found.append(_set_row(folder, run, rulers, codec, target, images, originals))
    return found


def _counts(run: Run, rows: Collection[Row]) -> dict[tuple[str, Target], int]:
    """Images that are ok, by codec and target, in the order of the run."""
    counts = {(codec.name, target): 0 for codec in run.codecs for target in run.targets}
    for row in rows:
        if (row.codec, row.target) in counts:
            counts[row.codec, row.target] += row.status == "ok"
    met = {(row.codec, row.target) for row in rows}
    return {key: count for key, count in counts.items() if key in met}


def _set_row(
    folder: Path, run: Run, rulers: Sequence[SetRuler], codec: str, target: Target, images: int, originals: Load
) -> SetRow:
    patches: dict[str, int] = {}
    values: dict[str, float] = {}
    notes: dict[str, str] = {}
    missing = len(run.images) - images
    for ruler in rulers:
        try:
            if missing:
                raise SprdiffError(f"{missing} of {len(run.images)} images are missing")
            paths = (member(folder, "features", codec, target, image.name, ".npz") for image in run.images)
            decoded = _joined(paths, ruler.network)
            patches[ruler.name] = len(decoded)
            values[ruler.name] = ruler.distance(originals(ruler.network), decoded)
        except SprdiffError as error:
            notes[ruler.name] = str(error)
    metrics: Mapping[str, float | None] = finite(values)
    figures = {ruler.name: metrics.get(ruler.name) for ruler in rulers}
    return SetRow(codec, target.bpp, images, patches, figures, notes, target.bytes)


def _originals(folder: Path, run: Run) -> Load:
    """Features of all originals by network, read when they are first asked for."""

    @cache
    def load(network: str) -> Features:
        return _joined((original_features(folder, image.name) for image in run.images), network)

    return load


def _joined(paths: Iterator[Path], network: str) -> Features:
    return np.concatenate([_read(path, network) for path in paths])


def _read(path: Path, network: str) -> Features:
    try:
        # Opened here: numpy leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            features: Features = arrays[network]
            return features
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ResultsError(f"{path} is missing or damaged") from error
