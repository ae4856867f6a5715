"""The report as one HTML page that fetches nothing: styles, script, drawings and pictures are inside it.

Whatever comes from a run - names of files and codecs, messages, versions - is escaped here and nowhere else. A content
security policy lets the page's own script run, known by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files

from ...common.messages import printable
from . import plots
from .data import Results, Ruler
from .document import Block, Folded, Pictures, Plots, Saying, Sayings, Section
from .findings import rival
from .pictures import Scene, Shot
from .published import published_for
from .tables import DASH, SYMBOLS, Cell, Table, heading

GENERATOR = '<meta name="generator" content="sprdiff report">'
"""By which a report is known as one that may be replaced."""
_NUMBER = re.compile(r"[+−]?\d[\d.,]*( %| \w{1,2})?( \(\w\))?|n/a.*|" + DASH)


def page(title: str, lead: Sequence[str], sections: Sequence[Section], results: Results, reference: str) -> str:
    """The whole page.

    Args:
        lead: paragraphs below the title.
        reference: codec on the left of the sliders.
    """
    writer = _Writer(results, reference)
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    body = "".join(map(writer.section, sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{GENERATOR}
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>{style}{writer.colours()}</style>
</head>
<body>
{writer.symbols()}
<header>
<p class="eyebrow">sprdiff report</p>
<h1>{text(title)}</h1>
{"".join(f'<p class="lead">{text(line)}</p>' for line in lead)}
<nav aria-label="Sections">{"".join(f'<a href="#{s.key}">{text(s.title)}</a>' for s in sections)}</nav>
</header>
<main>
{body}</main>
<script>{script}</script>
</body>
</html>
"""


def text(value: str) -> str:
    """Escaped for an element or an attribute in double quotes; control characters are written out."""
    return html.escape(printable(value), quote=True)


class _Writer:
    """Writes blocks; knows the codecs' places, by which they have their markers."""

    def __init__(self, results: Results, reference: str) -> None:
        self.results, self.reference = results, reference
        self.place = {codec: index for index, codec in enumerate(results.codecs)}

    def colours(self) -> str:
        looks = [plots.style(index).colour for index in self.place.values()]
        return "".join(f".k{i}{{color:{'var(--ink)' if c == plots.INK else c}}}" for i, c in enumerate(looks))

    def symbols(self) -> str:
        """The markers, drawn once; `marker` refers to them."""
        paths = {f"m{index}": plots.marker_path(plots.style(index).marker) for index in self.place.values()}
        drawn = "".join(
            f'<symbol id="{k}" viewBox="-1.2 -1.2 2.4 2.4"><path d="{d}"/></symbol>' for k, d in paths.items()
        )
        return f'<svg class="symbols" aria-hidden="true">{drawn}</svg>'

    def codec(self, name: str) -> str:
        """A codec's name with its marker."""
        place = self.place.get(name)
        mark = "" if place is None else f'<svg class="mark k{place}" aria-hidden="true"><use href="#m{place}"/></svg>'
        return f'<span class="codec">{mark}<span>{text(name).replace("@", "<wbr>@")}</span></span>'

    def section(self, section: Section) -> str:
        inside = "\n".join(map(self.block, section.blocks))
        return f'<section id="{section.key}">\n<h2>{text(section.title)}</h2>\n{inside}\n</section>\n'

    def block(self, block: Block) -> str:
        if isinstance(block, str):
            return f'<p class="note">{text(block)}</p>'
        if isinstance(block, Table):
            return self.table(block)
        if isinstance(block, Folded):
            inside = self.table(block.table, titled=False)
            return f"<details><summary>{text(block.table.title)}</summary>{inside}</details>"
        if isinstance(block, Sayings):
            return f'<div class="sayings">{"".join(map(_saying, block.rates))}</div>'
        if isinstance(block, Plots):
            return self.plots(block)
        if isinstance(block, Pictures):
            return self.pictures(block)
        return f"<pre>{chr(10).join(map(text, block.lines))}</pre>"

    # Tables

    def table(self, table: Table, *, titled: bool = True) -> str:
        won = any(cell.codec and cell.text for row in table.rows for cell in row)
        numeric = [_is_numeric(table, column) for column in range(len(table.head))]
        sort = [' class="n"' if is_number else "" for is_number in numeric]
        head = "".join(f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(table.head, sort, strict=True))
        rows = "".join(f"<tr>{''.join(self._cells(row, table.head, numeric))}</tr>" for row in table.rows)
        title = f"<h3>{text(table.title)}</h3>" if titled and not won else ""
        notes = f'<p class="note">{"<br>".join(map(text, table.notes))}</p>' if table.notes else ""
        kind = ' class="glance"' if won else ""
        return (
            f'{title}<div class="scroll" tabindex="0" role="region" aria-label="{text(table.title)}">'
            f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}"
        )

    def _cells(self, row: Sequence[Cell], head: Sequence[str], numeric: Sequence[bool]) -> Iterator[str]:
        for index, (cell, name) in enumerate(zip(row, head, strict=True)):
            kinds = " ".join(filter(None, ["n" if numeric[index] else "", cell.mark]))
            kind = f' class="{kinds}"' if kinds else ""
            label = f' data-label="{text(name)}"'
            yield (
                f'<th scope="row">{self._inside(cell)}</th>'
                if index == 0
                else f"<td{kind}{label}>{self._inside(cell)}</td>"
            )

    def _inside(self, cell: Cell) -> str:
        sign = f' <span class="sign" title="{cell.mark}">{SYMBOLS[cell.mark]}</span>' if cell.mark else ""
        figure = f'<span class="figure">{text(cell.text)}{sign}</span>' if cell.text else ""
        small = f"<small>{text(cell.small)}</small>" if cell.small else ""
        return (self.codec(cell.codec) if cell.codec else "") + figure + small

    # Plots

    def plots(self, block: Plots) -> str:
        drawn = [(ruler, plots.inline_curves(self.results, ruler)) for ruler in block.rulers]
        figures = "".join(_figure(ruler, svg) for ruler, svg in drawn if svg is not None)
        return f'{self._legend()}<div class="plots">{figures}</div>'

    def _legend(self) -> str:
        own = "".join(
            f'<li><button type="button" data-curve="c{i}" aria-pressed="false">{self.codec(n)}</button></li>'
            for n, i in self.place.items()
        )
        names = {c.codec for r in self.results.rulers for c in published_for(r.name, self.results.images)}
        quoted = "".join(
            f'<li class="quoted"><svg class="mark" viewBox="-1.2 -1.2 2.4 2.4" aria-hidden="true">'
            f'<path d="{plots.marker_path(plots.quoted_marker(name))}"/></svg><span>{text(name)}</span></li>'
            for name in sorted(names)
        )
        title = '<li class="quoted">published, dashed:</li>' if quoted else ""
        return f'<ul class="legend">{own}{title}{quoted}</ul>'

    # Pictures

    def pictures(self, block: Pictures) -> str:
        notes = "".join(f'<p class="note">{text(note)}</p>' for note in block.notes)
        return "".join(self._scene(scene) for scene in block.scenes) + notes

    def _scene(self, scene: Scene) -> str:
        name = text(scene.image)
        left = self.place[self.reference]
        right = self.place.get(
            rival(self.results, scene.shots[0].rate, self.reference, [s.codec for s in scene.shots]) or "", -1
        )
        alt = f"{scene.image}, original"
        original = _shot("original", "original", "", scene.original, alt, "") if scene.original else ""
        return f"""<article class="scene" data-left="c{left}" data-right="{f"c{right}" if right >= 0 else "original"}" \
style="--w:{scene.width}px;--r:{scene.width / scene.height:.4f}">
<h3>{name} <small>{scene.width} × {scene.height}</small></h3>
<div class="viewer" hidden>
<div class="choose"><label>left <select class="left"></select></label>
<label>right <select class="right"></select></label><label>rate <select class="rate"></select></label></div>
<div class="frame">
<img class="right" alt=""><img class="left" alt=""><span class="tag left"></span><span class="tag right"></span>
<input type="range" min="0" max="100" value="50" aria-label="{name}: where the left picture ends and the right begins">
<span class="divider"></span></div></div>
<div class="strip" tabindex="0" role="region" aria-label="{name}: all pictures">{original}
{"".join(map(self._one_shot, scene.shots))}</div></article>
"""

    def _one_shot(self, shot: Shot) -> str:
        alt = f"{shot.codec} at {shot.rate}"
        return _shot(f"c{self.place[shot.codec]}", shot.codec, str(shot.rate), shot.uri, alt, shot.caption)


def _saying(saying: Saying) -> str:
    remark = f" <small>{text(saying.remark)}</small>" if saying.remark else ""
    lines = "".join(f"<p>{text(line)}</p>" for line in saying.lines)
    return f"<div><h3>{text(saying.title)}{remark}</h3>{lines}</div>"


def _figure(ruler: Ruler, svg: str) -> str:
    better = "higher is better" if ruler.higher else "lower is better"
    label = f"{text(ruler.title)} over bits per pixel; the figures are in the tables"
    caption = f"<figcaption>{text(heading(ruler)[:-2])} <small>{better}</small></figcaption>"
    return f'<figure class="plot">{caption}<div role="img" aria-label="{label}">{svg}</div></figure>'


def _shot(key: str, name: str, rate: str, uri: str, alt: str, caption: str) -> str:
    at = f'<span class="at">{text(rate)}, </span>' if rate else ""
    return (
        f'<button type="button" class="shot" data-key="{key}" data-rate="{text(rate)}">'
        f'<img src="{uri}" alt="{text(alt)}"><strong>{text(name).replace("@", "<wbr>@")}</strong>'
        f'<small>{at}<span class="caption">{text(caption)}</span></small></button>\n'
    )


def _is_numeric(table: Table, column: int) -> bool:
    cells: Iterable[Cell] = (row[column] for row in table.rows)
    texts = [DASH if cell.codec else cell.text for cell in cells]
    return column > 0 and set(texts) != {DASH} and all(map(_NUMBER.fullmatch, texts))
