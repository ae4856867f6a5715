"""A run and its rows, arranged for the report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..results import MetricInfo, ResultsError, Row, Run, SetRow, read_rows, read_run, read_sets
from ..targets import Target

FIGURES = 4
"""Significant figures of a metric in tables."""


@dataclass(frozen=True)
class Metric:
    """A metric of the run, and how its figures are written.

    Attributes:
        higher: whether higher is better.
        digits: how many digits after the point there are in tables.
        of_sets: whether there is one figure per codec and rate over all images (Fréchet distances), not one
            per image.
    """

    name: str
    title: str
    unit: str
    higher: bool
    source: str
    digits: int
    of_sets: bool

    def gain(self, difference: float) -> float:
        """Return a difference of two figures with its sign changed so that above 0 is better."""
        return difference if self.higher else -difference

    def text(self, value: float, *, signed: bool = False) -> str:
        """Return the figure without its unit, with a true minus sign."""
        return minus(f"{value:{'+' if signed else ''}.{self.digits}f}")

    def with_unit(self, value: float, *, signed: bool = False) -> str:
        """Return the figure and its unit."""
        return f"{self.text(value, signed=signed)}{f' {self.unit}' if self.unit else ''}"


def minus(number: str) -> str:
    """Return the text of a number with a true minus sign, as wide as its digits."""
    return number.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Results:
    """The results in a folder. Codecs and metrics are in the order of the run; a rate is a `Target`."""

    folder: Path
    run: Run
    rows: tuple[Row, ...]
    sets: tuple[SetRow, ...]

    @cached_property
    def codecs(self) -> tuple[str, ...]:
        """Names of the codecs that have rows."""
        found = {row.codec for row in self.rows}
        return tuple(codec.name for codec in self.run.codecs if codec.name in found)

    @cached_property
    def images(self) -> tuple[str, ...]:
        """File names of the originals."""
        return tuple(image.name for image in self.run.images)

    @cached_property
    def rates(self) -> tuple[Target, ...]:
        """The targets that have rows, ascending."""
        return tuple(sorted({row.target for row in self.rows}))

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that have figures."""
        found = ((info, self._figures(info)) for info in self.run.metrics)
        return tuple(_metric(info, figures) for info, figures in found if figures)

    def _figures(self, info: MetricInfo) -> list[float]:
        rows: Iterable[Row | SetRow] = self.sets if info.scope == "set" else self.rows
        return [value for row in rows if (value := row.metrics.get(info.name)) is not None]

    @cached_property
    def _by_unit(self) -> dict[tuple[str, Target], dict[str, Row]]:
        found: dict[tuple[str, Target], dict[str, Row]] = {}
        for row in self.rows:
            found.setdefault((row.codec, row.target), {})[row.image] = row
        return found

    def at(self, codec: str, rate: Target) -> dict[str, Row]:
        """Return the measured rows of a codec at a rate by image, in the order of the images."""
        rows = self._by_unit.get((codec, rate), {})
        return {image: rows[image] for image in self.images if image in rows and rows[image].status == "ok"}

    def values(self, codec: str, rate: Target, metric: Metric) -> dict[str, float]:
        """Return the metric of each image; images without a finite figure are left out."""
        figures = ((image, row.metrics.get(metric.name)) for image, row in self.at(codec, rate).items())
        return {image: value for image, value in figures if value is not None}

    def set_value(self, codec: str, rate: Target, metric: Metric) -> float | None:
        """Return the figure of a metric of sets."""
        rows = (row for row in self.sets if (row.codec, row.target) == (codec, rate))
        return next((row.metrics.get(metric.name) for row in rows), None)

    def mean(self, codec: str, rate: Target, metric: Metric) -> float | None:
        """Return the mean over the images, or the figure of the set."""
        if metric.of_sets:
            return self.set_value(codec, rate, metric)
        values = self.values(codec, rate, metric).values()
        return statistics.fmean(values) if values else None

    def mean_bpp(self, codec: str, rate: Target) -> float | None:
        """Return the mean of the actual rates in bits per pixel."""
        rates = [row.bpp for row in self.at(codec, rate).values() if row.bpp is not None]
        return statistics.fmean(rates) if rates else None

    def curve(self, codec: str, metric: Metric) -> list[tuple[float, float]]:
        """Return the points (mean bpp, mean figure), by bpp, of all rates at which the codec lacks no image,
        see `missing`.

        A mean over the easy images only would not belong to the same curve.
        """
        rates = [rate for rate in self.rates if not self.missing(codec, rate)]
        points = ((self.mean_bpp(codec, rate), self.mean(codec, rate, metric)) for rate in rates)
        return sorted((bpp, value) for bpp, value in points if bpp is not None and value is not None)

    def missing(self, codec: str, rate: Target) -> int:
        """Count the images that some codec reached at this rate, but this one did not."""
        return len(self._reached(rate) - set(self.at(codec, rate)))

    def reached(self, rate: Target) -> int:
        """Count the images that some codec reached at this rate."""
        return len(self._reached(rate))

    def _reached(self, rate: Target) -> set[str]:
        return {image for codec in self.codecs for image in self.at(codec, rate)}

    @property
    def reference(self) -> str:
        """The codec that the others are compared with by default: the first sprdiff, or else the first."""
        return next((name for name in self.codecs if name.startswith("sprdiff")), self.codecs[0])


def load(folder: Path) -> Results:
    """Read a folder that ``sprdiff eval`` has filled.

    Raises:
        ResultsError: it is something else, is damaged, or has no rows yet.
    """
    results = Results(folder, read_run(folder), tuple(read_rows(folder)), tuple(read_sets(folder)))
    if not results.codecs:
        raise ResultsError(f"{folder} has no rows yet")
    return results


def _metric(info: MetricInfo, figures: list[float]) -> Metric:
    typical = statistics.median(abs(figure) for figure in figures)
    digits = FIGURES - 1 - math.floor(math.log10(typical)) if typical > 0 else FIGURES
    higher, of_sets = info.direction == "up", info.scope == "set"
    return Metric(info.name, info.title, info.unit, higher, info.source, min(max(digits, 0), 6), of_sets)


def budget(results: Results, rate: Target) -> str:
    """Return the target in its other unit, such as ``at most 678 bytes a picture``."""
    sizes = [(image.width, image.height) for image in results.run.images]
    if rate.bytes is not None:
        rates = [8 * rate.bytes / (width * height) for width, height in sizes]
        return f"{_span(min(rates), max(rates), '.4f')} bpp"
    budgets = [rate.budget(width, height) for width, height in sizes]
    return f"at most {_span(min(budgets), max(budgets), ',')} bytes a picture"


def _span(low: float, high: float, form: str) -> str:
    """Return a range of numbers, or one number if both ends read the same."""
    return " to ".join(dict.fromkeys([f"{low:{form}}", f"{high:{form}}"]))
