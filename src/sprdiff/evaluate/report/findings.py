"""Findings: which codec is best in which metric, sentences about it, and the images on which each codec
does worst."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..targets import Target
from .data import Metric, Results
from .intervals import Interval, mean_interval, paired_interval


@dataclass(frozen=True)
class Verdict:
    """The best codec in one metric at one rate.

    Attributes:
        best: its name; None if no codec has every image.
        ties: the codecs whose paired difference to the best has a confidence interval that contains zero.
        means: the means of all codecs that have a figure, also of those that lack images and cannot win.
    """

    metric: Metric
    rate: Target
    best: str | None
    ties: tuple[str, ...]
    means: dict[str, Interval]


def verdict(results: Results, metric: Metric, rate: Target) -> Verdict:
    """Compare the codecs that have every image that some codec reached at this rate."""
    means = {codec: mean for codec in results.codecs if (mean := mean_of(results, codec, rate, metric))}
    able = [codec for codec in means if not results.missing(codec, rate)]
    if not metric.of_sets:
        able = [codec for codec in able if means[codec].n == results.reached(rate)]
    if not able:
        return Verdict(metric, rate, None, (), means)
    best = max(able, key=lambda codec: metric.gain(means[codec].mean))
    ties = tuple(codec for codec in able if codec != best and _tied(results, metric, rate, codec, best))
    return Verdict(metric, rate, best, ties, means)


def mean_of(results: Results, codec: str, rate: Target, metric: Metric) -> Interval | None:
    """Return the mean over images with its interval; a metric of sets has one figure and no interval."""
    if metric.of_sets:
        value = results.set_value(codec, rate, metric)
        return None if value is None else Interval(value, None, 1)
    return mean_interval(list(results.values(codec, rate, metric).values()))


def difference(results: Results, metric: Metric, rate: Target, codec: str, other: str) -> Interval | None:
    """Return the mean of ``codec - other`` over the images that both have."""
    if metric.of_sets:
        a, b = (results.set_value(name, rate, metric) for name in (codec, other))
        return None if a is None or b is None else Interval(a - b, None, 1)
    return paired_interval(results.values(codec, rate, metric), results.values(other, rate, metric))


def _tied(results: Results, metric: Metric, rate: Target, codec: str, other: str) -> bool:
    found = difference(results, metric, rate, codec, other)
    return found is not None and found.holds_zero


def sentences(results: Results, rate: Target, reference: str) -> list[str]:
    """Return sentences about one rate: which codec is best in which metric, and where and by how much the
    reference loses."""
    verdicts = [verdict(results, metric, rate) for metric in results.metrics]
    wins: dict[str, list[str]] = {}
    losses: dict[str, list[str]] = {}
    for item in verdicts:
        if item.best is None:
            continue
        wins.setdefault(item.best, []).append(f"{item.metric.title}{' (tie)' if item.ties else ''}")
        if lost := _loss(results, item, reference):
            losses.setdefault(item.best, []).append(lost)
    if not wins:
        return ["No codec has every picture at this rate, so none is called best."]
    lines = [f"{winner} is best at {listed(what)}." for winner, what in _longest_first(wins)]
    return lines + [
        f"{reference} loses to {winner} by {listed(by)}." for winner, by in _longest_first(losses)
    ]


def _longest_first(found: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    return sorted(found.items(), key=lambda pair: -len(pair[1]))


def _loss(results: Results, item: Verdict, reference: str) -> str:
    """Return a text such as ``1.14 dB in PSNR``; empty if the reference is best, ties with the best, or
    has no figure."""
    if item.best is None or item.best == reference or reference in item.ties:
        return ""
    found = difference(results, item.metric, item.rate, item.best, reference)
    return "" if found is None else f"{item.metric.with_unit(abs(found.mean))} in {item.metric.title}"


def listed(names: Sequence[str]) -> str:
    """Join names to ``a``, ``a and b`` or ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class Worst:
    """The images on which a codec does worst.

    Attributes:
        lowest: image, rate and figure of its lowest quality; None if it has no figure.
        loss: image, rate, difference and opponent of its largest loss to the reference. The opponent of the
            reference itself is the best codec on that image. None if it loses nowhere.
    """

    codec: str
    lowest: tuple[str, Target, float] | None
    loss: tuple[str, Target, float, str] | None


def worst_cases(results: Results, metric: Metric, reference: str) -> list[Worst]:
    """Return one entry for each codec, over all rates."""
    return [
        Worst(codec, _lowest(results, metric, codec), _largest_loss(results, metric, codec, reference))
        for codec in results.codecs
    ]


def _lowest(results: Results, metric: Metric, codec: str) -> tuple[str, Target, float] | None:
    cases = [
        (image, rate, value)
        for rate in results.rates
        for image, value in results.values(codec, rate, metric).items()
    ]
    return min(cases, key=lambda case: metric.gain(case[2]), default=None)


def _largest_loss(
    results: Results, metric: Metric, codec: str, reference: str
) -> tuple[str, Target, float, str] | None:
    others = [name for name in results.codecs if name != codec] if codec == reference else [reference]
    cases = []
    for rate in results.rates:
        own = results.values(codec, rate, metric)
        for other in others:
            theirs = results.values(other, rate, metric)
            cases += [(image, rate, own[image] - theirs[image], other) for image in own if image in theirs]
    worst = min(cases, key=lambda case: metric.gain(case[2]), default=None)
    return worst if worst is not None and metric.gain(worst[2]) < 0 else None


def main_metric(results: Results) -> Metric | None:
    """Return MS-SSIM, for which the codecs are tuned, or else the first metric of single images."""
    single = [metric for metric in results.metrics if not metric.of_sets]
    return next((metric for metric in single if metric.name == "ms_ssim"), single[0] if single else None)


def best_other(results: Results, rate: Target, reference: str, among: Iterable[str]) -> str | None:
    """Return the best codec by `main_metric` that is no variant of the reference."""
    metric, family = main_metric(results), reference.split("@")[0].split("-")[0]
    if metric is None:
        return None
    others = [name for name in among if not name.startswith(family)]
    found = {name: mean for name in others if (mean := results.mean(name, rate, metric)) is not None}
    return max(found, key=lambda name: metric.gain(found[name]), default=None)
