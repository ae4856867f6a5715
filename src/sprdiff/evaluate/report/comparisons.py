"""The report's tables as plain data; `markdown` and `page` write them in their own way."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..codecs.base import Scalar
from ..results import Row
from ..targets import Target
from . import bd
from .data import Metric, Results, minus
from .findings import difference, main_metric, verdict, worst_cases
from .intervals import Interval
from .published import PublishedCurve, published_for

DASH = "–"
BEST, TIE, BETTER, WORSE, EVEN = "best", "tie", "better", "worse", "even"
SYMBOLS = {BEST: "★", TIE: "≈", BETTER: "▲", WORSE: "▼", EVEN: "≈"}
"""The sign of each mark, so that nothing depends on colour alone."""
SHOWN_FAILURES = 40
FEW = 4


@dataclass(frozen=True)
class Cell:
    """A cell: a codec's name (with its marker) or a text, a smaller addition, and a mark."""

    text: str = ""
    small: str = ""
    mark: str = ""
    codec: str = ""


@dataclass(frozen=True)
class Table:
    """A table: rows of cells below a head. The first cell names its row. Notes stand below the table."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def heading(metric: Metric) -> str:
    """Return a heading such as ``PSNR, dB ↑``: the name, the unit, and an arrow towards better figures."""
    return f"{metric.title}{f', {metric.unit}' if metric.unit else ''} {'↑' if metric.higher else '↓'}"


def glance(results: Results) -> Table:
    """Return the best codecs: one row per metric, one column per rate."""
    rows = []
    for metric in results.metrics:
        cells = [Cell(heading(metric))]
        for rate in results.rates:
            found = verdict(results, metric, rate)
            if found.best is None:
                cells.append(Cell(DASH))
                continue
            ties = f"≈ {', '.join(found.ties)}" if found.ties else ""
            cells.append(Cell(metric.with_unit(found.means[found.best].mean), ties, codec=found.best))
        rows.append(tuple(cells))
    return Table("Best codec by metric and rate", ("metric", *map(str, results.rates)), tuple(rows))


def means(results: Results, rate: Target) -> Table:
    """Return the mean and the 95 % interval of every metric, one row per codec."""
    verdicts = [verdict(results, metric, rate) for metric in results.metrics]
    rows = []
    for codec in results.codecs:
        bpp = results.mean_bpp(codec, rate)
        cells = [_name(results, codec, rate), Cell(DASH if bpp is None else f"{bpp:.4f}")]
        for found in verdicts:
            mark = BEST if codec == found.best else TIE if codec in found.ties else ""
            cells.append(_interval(found.metric, found.means.get(codec), mark))
        rows.append(tuple(cells))
    return Table(f"Means at {rate}", ("codec", "bpp", *map(heading, results.metrics)), tuple(rows))


def differences(results: Results, rate: Target, reference: str) -> Table:
    """Return the paired differences to the reference on the same images, with 95 % intervals."""
    rows = []
    for codec in results.codecs:
        if codec == reference:
            continue
        cells = [_name(results, codec, rate)]
        for metric in results.metrics:
            found = difference(results, metric, rate, codec, reference)
            cells.append(_interval(metric, found, _side(metric, found), signed=True))
        rows.append(tuple(cells))
    head = ("codec", *map(heading, results.metrics))
    return Table(f"Differences to {reference} at {rate}", head, tuple(rows))


def _name(results: Results, codec: str, rate: Target) -> Cell:
    """Return a codec's name, and how many pictures it has if some are missing: its means are not
    comparable then."""
    missing, total = results.missing(codec, rate), results.reached(rate)
    return Cell(codec=codec, small=f"{total - missing} of {total} pictures" if missing else "")


def _side(metric: Metric, found: Interval | None) -> str:
    if found is None or found.half is None:  # without an interval there is no verdict on a single figure
        return ""
    if found.holds_zero:
        return EVEN
    return BETTER if metric.gain(found.mean) > 0 else WORSE


def _interval(metric: Metric, found: Interval | None, mark: str, *, signed: bool = False) -> Cell:
    if found is None:
        return Cell(DASH)
    small = "" if found.half is None else f"± {metric.text(found.half)}"
    return Cell(metric.text(found.mean, signed=signed), small, mark)


def deltas(results: Results, reference: str) -> Table:
    """Return BD-rate (percent) and BD-metric of every codec against the reference."""
    notes: list[str] = []
    rows = []
    for codec in results.codecs:
        if codec == reference:
            continue
        cells = [Cell(codec=codec)]
        for metric in results.metrics:
            curves = results.curve(reference, metric), results.curve(codec, metric)
            rate = bd.bd_rate(*curves, higher_is_better=metric.higher)
            quality = bd.bd_quality(*curves, higher_is_better=metric.higher)
            cells.append(
                Cell(
                    _delta(rate, notes, lambda value: f"{value:+.1f} %"),
                    _delta(quality, notes, partial(metric.with_unit, signed=True)),
                    _cheaper(rate),
                )
            )
        rows.append(tuple(cells))
    head = ("codec", *map(heading, results.metrics))
    return Table(f"BD-rate and BD-metric against {reference}", head, tuple(rows), _footnotes(notes))


def _cheaper(rate: bd.Delta) -> str:
    if rate.value is None or round(rate.value, 1) == 0:
        return ""
    return BETTER if rate.value < 0 else WORSE


def _delta(delta: bd.Delta, notes: list[str], show: Callable[[float], str]) -> str:
    text = "n/a" if delta.value is None else minus(show(delta.value))
    if not delta.reason:
        return text
    if delta.reason not in notes:
        notes.append(delta.reason)
    return f"{text} ({_letter(notes.index(delta.reason))})"


def _letter(index: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[index]


def _footnotes(notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"({_letter(i)}) {note}" for i, note in enumerate(notes))


def worst(results: Results, reference: str) -> Table | None:
    """Return the picture on which each codec does worst; None if there is no metric of single images."""
    metric = main_metric(results)
    if metric is None:
        return None
    rows = []
    for case in worst_cases(results, metric, reference):
        lowest = Cell(DASH)
        if case.lowest:
            image, rate, value = case.lowest
            lowest = Cell(f"{image} at {rate}", metric.with_unit(value))
        loss = Cell(DASH)
        if case.loss:
            image, rate, value, other = case.loss
            against = f" to {other}" if case.codec == reference else ""
            loss = Cell(f"{image} at {rate}", f"{metric.with_unit(value, signed=True)}{against}")
        rows.append((Cell(codec=case.codec), lowest, loss))
    head = ("codec", f"worst {metric.title}", f"largest loss to {reference}")
    return Table(f"Worst pictures by {metric.title}", head, tuple(rows))


def costs(results: Results) -> Table:
    """Return the seconds and memory per picture, over all rates."""
    rows = []
    for codec in results.codecs:
        done = [row for rate in results.rates for row in results.at(codec, rate).values()]
        cells = [
            _median([row.encode_s for row in done]),
            _median([row.decode_s for row in done]),
            _largest([row.peak_mb for row in done]),
        ]
        rows.append((Cell(codec=codec), *cells))
    head = ("codec", "encode, s", "decode, s", "peak memory, MB")
    notes = (
        "Medians over pictures and rates of one encode and one decode at the chosen setting, "
        "in seconds of one core; "
        "the largest memory of the process.",
        f"Measured on {results.run.cpu or results.run.platform}.",
    )
    return Table("Time and memory", head, tuple(rows), notes)


def _median(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    return Cell(f"{statistics.median(known):.3g}" if known else DASH)


def _largest(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    return Cell(f"{max(known):.0f}" if known else DASH)


def settings(results: Results) -> Table:
    """Return the chosen settings by codec and rate."""
    rows = []
    for codec in results.codecs:
        chosen = [Cell(_chosen(list(results.at(codec, rate).values()))) for rate in results.rates]
        rows.append((Cell(codec=codec), *chosen))
    note = "Lowest – median – highest, or the share of pictures with each value."
    return Table("Settings chosen", ("codec", *map(str, results.rates)), tuple(rows), (note,))


def _chosen(rows: Sequence[Row]) -> str:
    keys = dict.fromkeys(key for row in rows for key in row.setting)
    return "; ".join(f"{key} {_spread([row.setting.get(key) for row in rows])}" for key in keys) or DASH


def _spread(values: Sequence[Scalar]) -> str:
    counts = Counter(values)
    if len(counts) == 1:
        return _plain(values[0])
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(counts) > min(FEW, len(values) / 2) and len(numbers) == len(values):
        return " – ".join(_plain(v) for v in (min(numbers), statistics.median(numbers), max(numbers)))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return ", ".join(f"{_plain(value)} ({count / len(values):.0%})" for value, count in ordered)


def _plain(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def versions(results: Results) -> Table:
    """Return the name and version of every codec."""
    rows = tuple((Cell(codec=codec.name), Cell(codec.version)) for codec in results.run.codecs)
    return Table("Codecs", ("codec", "version"), rows)


def metrics(results: Results) -> Table:
    """Return the metrics and their sources."""
    rows = tuple(
        (
            Cell(metric.title),
            Cell(metric.unit or DASH),
            Cell("higher" if metric.higher else "lower"),
            Cell(metric.source),
        )
        for metric in results.metrics
    )
    return Table("Metrics", ("metric", "unit", "better", "source"), rows)


def skipped(results: Results) -> Table | None:
    """Return the codecs, metrics and figures of sets that are missing; None if nothing is."""
    left = [(item.name, item.reason) for item in [*results.run.skipped_codecs, *results.run.skipped_metrics]]
    titles = {info.name: info.title for info in results.run.metrics}
    left += [(titles.get(name, name), why) for found in results.sets for name, why in found.notes.items()]
    rows = tuple((Cell(name), Cell(why)) for name, why in dict.fromkeys(left))
    return Table("Left out", ("what", "why"), rows) if rows else None


def failures(results: Results) -> Table | None:
    """Return the rows that have no figure, up to a limit."""
    rows = [row for row in results.rows if row.status != "ok"]
    if not rows:
        return None
    cells = tuple(
        (Cell(codec=row.codec), Cell(row.image), Cell(str(row.target)), Cell(row.status, row.message))
        for row in rows[:SHOWN_FAILURES]
    )
    rest = len(rows) - len(cells)
    notes = (f"{rest} further rows are in rows.jsonl.",) if rest else ()
    return Table(
        "Rates not reached and failures", ("codec", "picture", "rate", "what happened"), cells, notes
    )


def published(results: Results) -> Table | None:
    """Return the sources and warnings of the published curves that the plots show."""
    found: dict[str, list[tuple[str, PublishedCurve]]] = {}
    for metric in results.metrics:
        for curve in published_for(metric.name, results.images):
            found.setdefault(curve.codec, []).append((metric.title, curve))
    rows = []
    for codec, curves in found.items():
        titles, (first, *_) = [title for title, _ in curves], [curve for _, curve in curves]
        warnings = dict.fromkeys(curve.warning for _, curve in curves if curve.warning)
        careful = Cell(". ".join(f"{w[0].upper()}{w[1:]}" for w in warnings) or DASH)
        rows.append((Cell(codec), Cell(", ".join(titles)), Cell(first.source, first.accuracy), careful))
    head = ("curve", "metrics", "source", "careful")
    return Table("Published curves, dashed in the plots", head, tuple(rows)) if rows else None
