"""The report as one HTML page without external resources: styles, script, drawings and pictures are inside.

The template ``page.html`` escapes everything that comes from a run: names of files and codecs, messages,
versions. A content security policy allows only the page's own script, which it knows by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from ...common.messages import printable
from ..metrics.tensors import need
from . import plots
from .comparisons import DASH, SYMBOLS, Cell, Table, heading
from .data import Metric, Results
from .document import Plots, Section
from .findings import best_other
from .pictures import Scene
from .published import published_for

GENERATOR = '<meta name="generator" content="sprdiff report">'
"""A mark by which a report is known as something that may be replaced."""
_NUMBER = re.compile(r"[+−]?\d[\d.,]*( %| \w{1,2})?( \(\w\))?|n/a.*|" + DASH)


def page(
    title: str, lead: Sequence[str], sections: Sequence[Section], results: Results, reference: str
) -> str:
    """Return the whole page.

    Args:
        lead: the paragraphs below the title.
        reference: the codec on the left side of the sliders.
    """
    safe = need("markupsafe").Markup
    style, script, template = (_own_file(name) for name in ("page.css", "page.js", "page.html"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    place = {codec: index for index, codec in enumerate(results.codecs)}
    looks = [plots.style(index) for index in place.values()]
    names = {
        curve.codec for metric in results.metrics for curve in published_for(metric.name, results.images)
    }

    def drawn(block: Plots) -> list[tuple[Metric, str, Any]]:
        found = ((metric, plots.inline_curves(results, metric)) for metric in block.metrics)
        return [(metric, heading(metric)[:-2], safe(svg)) for metric, svg in found if svg is not None]

    def right_of(scene: Scene) -> str:
        """Return the picture on the right side of a scene's slider: that of the best other codec, or else
        the original."""
        shown = [shot.codec for shot in scene.shots]
        other = best_other(results, scene.shots[0].rate, reference, shown)
        return "original" if other is None else f"c{place[other]}"

    text: str = (
        _environment()
        .from_string(template)
        .render(
            title=title,
            lead=lead,
            sections=sections,
            reference=reference,
            place=place,
            symbols=SYMBOLS,
            style=safe(style),
            script=safe(script),
            script_hash=digest,
            generator=safe(GENERATOR),
            newline=safe("\n"),
            colours=[
                (i, "var(--ink)" if look.colour == plots.INK else look.colour) for i, look in enumerate(looks)
            ],
            markers=[(i, plots.marker_path(look.marker)) for i, look in enumerate(looks)],
            quoted=[(name, plots.marker_path(plots.quoted_marker(name))) for name in sorted(names)],
            drawn=drawn,
            right_of=right_of,
            kind_of=lambda block: type(block).__name__,
            numeric_columns=_numeric_columns,
            names_winners=_names_winners,
        )
    )
    return text


def _own_file(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _environment() -> Any:
    """Return a Jinja environment that escapes every value that is not marked as safe."""
    jinja2, markupsafe = need("jinja2"), need("markupsafe")

    def shown(value: Any) -> Any:
        return (
            printable(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value
        )

    def breakable(name: str) -> Any:
        """Return a codec's name as HTML with a possible line break before each of its options."""
        return markupsafe.Markup("<wbr>@").join(printable(part) for part in name.split("@"))

    environment = jinja2.Environment(
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def _names_winners(table: Table) -> bool:
    """Whether the cells name a codec beside a figure, as only the first table does."""
    return any(cell.codec and cell.text for row in table.rows for cell in row)


def _numeric_columns(table: Table) -> list[bool]:
    return [_is_numeric([row[column] for row in table.rows], column) for column in range(len(table.head))]


def _is_numeric(cells: Sequence[Cell], column: int) -> bool:
    texts = [DASH if cell.codec else cell.text for cell in cells]
    return column > 0 and set(texts) != {DASH} and all(map(_NUMBER.fullmatch, texts))
