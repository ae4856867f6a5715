"""Rate-quality curves as SVG, drawn by matplotlib. Every codec has a colour and a marker.

The palette of Okabe and Ito ("Color universal design", 2008) suits all common kinds of colour blindness.
Lines also differ by marker and, after seven codecs, by dashes, so that nothing depends on colour alone.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...common.messages import printable
from ..metrics.tensors import need
from .bd import Curve
from .comparisons import heading
from .data import Metric, Results
from .published import KODAK, PublishedCurve, published_for

INK = "#1b1f24"
"""The colour of text, axes and the seventh codec; in the page it follows the colour scheme."""
GRID = "#c9ced4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHED = (0, (4, 2.5))
"""The dashes of published curves."""
_QUOTED_MARKERS = ("1", "2", "+", "x")
SIZE = (4.6, 3.3)
"""The size in inches; it is small, so that the text stays readable on a phone."""
FILE_SIZE = (7.2, 4.4)
MARGIN = 0.12
"""The margin on both sides, as a share of the run's range of rates."""
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sprdiff",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": GRID,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}
"""Text stays text, and equal input gives equal files."""


@dataclass(frozen=True)
class Style:
    """How a codec is drawn in all plots."""

    colour: str
    marker: str
    dashes: Any


def style(index: int) -> Style:
    """Return the style of the codec at this place in the run."""
    dashes = ("-", (0, (1, 1.5)), (0, (6, 2, 1, 2)))[index // len(COLOURS) % 3]
    return Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], dashes)


def quoted_marker(codec: str) -> str:
    """Return the marker of a published curve."""
    names = list(dict.fromkeys(item.codec for item in KODAK))
    return _QUOTED_MARKERS[names.index(codec) % len(_QUOTED_MARKERS)]


def marker_path(marker: str) -> str:
    """Return a marker of matplotlib as SVG path data within ±1; y points down."""
    found = need("matplotlib.markers").MarkerStyle(marker)
    path = found.get_path().transformed(found.get_transform())
    reach = max(abs(float(v)) for v in path.vertices.ravel())
    letters = {1: "M", 2: "L", 3: "Q", 4: "C"}
    parts = []
    for points, code in path.iter_segments(simplify=False):
        numbers = " ".join(
            f"{v / reach * (1 if i % 2 == 0 else -1):.2f}" for i, v in enumerate(map(float, points))
        )
        parts.append(f"{letters[int(code)]}{numbers}" if int(code) in letters else "Z")
    return "".join(parts)


def curves(results: Results, metric: Metric) -> str | None:
    """Return a complete SVG file: the metric over the rate, with a legend; None if no codec has a figure."""
    return _draw(results, metric, inline=False)


def inline_curves(results: Results, metric: Metric) -> str | None:
    """Return the curves as an ``<svg>`` element for the page, which has its own legend; colours are CSS
    variables."""
    text = _draw(results, metric, inline=True)
    if text is None:
        return None
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "var(--ink)").replace(GRID, "var(--line)")
    unique = re.sub(r"[^a-zA-Z0-9]", "_", metric.name)
    # IDs must differ from those of the page's other drawings.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{unique}-", svg)
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", svg, count=1)


def _draw(results: Results, metric: Metric, *, inline: bool) -> str | None:
    own = {codec: results.curve(codec, metric) for codec in results.codecs}
    if not any(own.values()):
        return None
    quoted = published_for(metric.name, results.images)
    stream = io.StringIO()
    with need("matplotlib").rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a name in a script that matplotlib's own font lacks; the page's font has it
        figure = need("matplotlib.figure").Figure(figsize=SIZE if inline else FILE_SIZE, layout="constrained")
        axes = figure.add_subplot()
        _own_lines(axes, own)
        _quoted_lines(axes, quoted)
        _frame(axes, [point for curve in own.values() for point in curve], quoted)
        if not inline:
            axes.set_title(heading(metric), loc="left")
            figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        # Without date and addresses, equal input gives an equal file.
        unset = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=inline, metadata=unset)
    return stream.getvalue()


def _own_lines(axes: Any, curves: Mapping[str, Curve]) -> None:
    for index, (name, curve) in enumerate(curves.items()):
        look = style(index)
        if curve:
            (line,) = axes.plot(
                *zip(*curve, strict=True), color=look.colour, marker=look.marker, linestyle=look.dashes
            )
            line.set(
                label=_literal(name), gid=f"c{index}", markersize=6, linewidth=1.8, zorder=4 - index / 100
            )


def _quoted_lines(axes: Any, quoted: Sequence[PublishedCurve]) -> None:
    for item in quoted:
        (line,) = axes.plot(
            item.rates, item.values, color=INK, linestyle=DASHED, marker=quoted_marker(item.codec)
        )
        line.set(label=f"{item.codec}, published", alpha=0.6, linewidth=1.1, markersize=7, zorder=2)


def _frame(axes: Any, points: Curve, quoted: Sequence[PublishedCurve]) -> None:
    """Show the run's own rates with a margin; published curves go beyond and are cut there."""
    low, high = min(rate for rate, _ in points), max(rate for rate, _ in points)
    margin = MARGIN * (high - low) or MARGIN * high
    left, right = low - margin, high + margin
    values = [value for _, value in points]
    for item in quoted:
        values += [
            value for rate, value in zip(item.rates, item.values, strict=True) if left <= rate <= right
        ]
    pad = 0.06 * (max(values) - min(values)) or 0.06 * abs(values[0]) or 1.0
    axes.set(
        xlim=(left, right), ylim=(min(values) - pad, max(values) + pad), xlabel="bits per pixel, whole file"
    )
    axes.locator_params(nbins=5)
    axes.tick_params(length=0)
    axes.grid(True)


def _literal(name: str) -> str:
    """Return a name as matplotlib prints it unchanged: without mathematics between dollars, and never
    hidden."""
    text = printable(name).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text
