"""The content of the report in its order; `page` and `markdown` write the same sections in their own way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import comparisons
from .comparisons import BETTER, EVEN, SYMBOLS, TIE, WORSE, Table
from .data import Metric, Results, budget
from .findings import listed, sentences
from .pictures import Scene

COMPARED = (
    "The best codec has the best mean over all pictures. ≈ names ties: the 95 % interval of their paired "
    "difference to the best contains zero."
)
BYTES = "Rates count whole files with every header byte: bpp is 8 × bytes / pixels of the original."
SEARCHED = (
    "Ordinary codecs were searched for their best MS-SSIM within the bytes, over quality and over coding a "
    "smaller picture that is enlarged again (Lanczos). The decoder is told the original's size for free, "
    "which favours them."
)
RANKING = "SSIMULACRA2 is far outside its range here: read it as a ranking, not as a score."
DELTAS = (
    "BD-rate is the rate needed for the same quality, in percent (− is less). The second line is BD-metric, "
    "the figure at the same rate. Both come from the package bjontegaard with PCHIP interpolation, which "
    "does not overshoot between few points."
)
QUOTED = (
    "These curves are quoted, not measured here, and must not be compared across LPIPS backbones. They are "
    "means over Kodak's 24 photographs."
)
INVENTED = "At these rates details are invented: not for evidence, faces or text."


@dataclass(frozen=True)
class Saying:
    """Sentences about one rate."""

    title: str
    remark: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sayings:
    """The sentences of all rates, side by side."""

    rates: tuple[Saying, ...]


@dataclass(frozen=True)
class Plots:
    """The curves of these metrics."""

    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Pictures:
    """Scenes with sliders, and the reasons why pictures are missing."""

    scenes: tuple[Scene, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """Lines for a terminal."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Folded:
    """A table that the reader can open."""

    table: Table


Block = str | Table | Folded | Sayings | Plots | Pictures | Command


@dataclass(frozen=True)
class Section:
    """A heading, its name in addresses, and its content, in which paragraphs are plain strings."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def document(results: Results, reference: str, pictures: Pictures) -> list[Section]:
    """Return all sections of the report."""
    return [
        _glance(results, reference),
        _means(results, reference),
        _curves(results),
        Section("bd", "Bytes saved", (DELTAS, comparisons.deltas(results, reference))),
        _section("worst", "Worst pictures", [comparisons.worst(results, reference)]),
        Section("pictures", "Pictures at equal bytes", (INVENTED, pictures)),
        Section(
            "settings",
            "Settings and cost",
            (SEARCHED, comparisons.settings(results), comparisons.costs(results)),
        ),
        _making(results),
    ]


def summary(results: Results) -> str:
    """Return a summary such as ``24 pictures, 9 codecs, 3 rates``."""
    counts = (len(results.images), "picture"), (len(results.codecs), "codec"), (len(results.rates), "rate")
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)


def _section(key: str, title: str, blocks: Sequence[Block | None]) -> Section:
    return Section(key, title, tuple(block for block in blocks if block is not None))


def _glance(results: Results, reference: str) -> Section:
    sayings = tuple(
        Saying(f"At {rate}", budget(results, rate), tuple(sentences(results, rate, reference)))
        for rate in results.rates
    )
    sets = [metric.title for metric in results.metrics if metric.of_sets]
    single = f"{listed(sets)} is one figure for all pictures: no interval, so no ties." if sets else None
    return _section(
        "glance", "At a glance", [comparisons.glance(results), Sayings(sayings), COMPARED, single]
    )


def _means(results: Results, reference: str) -> Section:
    blocks: list[Block] = [
        f"Mean ± half of the 95 % confidence interval (Student's t over the pictures). {BYTES}"
    ]
    if any(metric.name == "ssimulacra2" for metric in results.metrics):
        blocks.append(RANKING)
    signs = f"{SYMBOLS[BETTER]} better, {SYMBOLS[WORSE]} worse, {SYMBOLS[EVEN]} undecided"
    for rate in results.rates:
        blocks += [comparisons.means(results, rate)]
        if len(results.codecs) > 1:
            blocks.append(Folded(comparisons.differences(results, rate, reference)))
    blocks.append(
        f"★ best, {SYMBOLS[TIE]} tie with the best. "
        f"Differences are paired, picture by picture ({signs}): most of the "
        "width of the intervals above is that some pictures are harder than others, which falls out."
    )
    return Section("means", "Means", tuple(blocks))


def _curves(results: Results) -> Section:
    quoted = comparisons.published(results)
    blocks: list[Block | None] = [Plots(results.metrics)]
    if quoted:
        blocks += [QUOTED, quoted]
    return _section("curves", "Rate and quality", blocks)


def _making(results: Results) -> Section:
    run = results.run
    machine = f"sprdiff {run.sprdiff}, Python {run.python}, {run.platform}, {run.cpu}."
    blocks: list[Block | None] = [
        Command(tuple(run.commands)),
        machine,
        comparisons.skipped(results),
        comparisons.failures(results),
        comparisons.metrics(results),
        comparisons.versions(results),
    ]
    return _section("making", "How it was made", blocks)
