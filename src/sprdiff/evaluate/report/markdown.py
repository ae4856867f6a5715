"""The report as Markdown: its tables, for a repository or a discussion. Pictures are only in the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...common.messages import printable
from .comparisons import BEST, SYMBOLS, Cell, Table
from .document import Block, Command, Folded, Pictures, Plots, Sayings, Section

_SPECIAL = frozenset("\\`*_[]<>|~#&$")


def markdown(title: str, lead: Sequence[str], sections: Iterable[Section], plots: dict[str, str]) -> str:
    """Return the whole text.

    Args:
        lead: the paragraphs below the title.
        plots: the relative path of each metric's plot.
    """
    lines = [f"# {escape(title)}", "", *(line for text in lead for line in (escape(text), ""))]
    for section in sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block, plots), ""]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Escape a text so that it appears as it is: without markup and HTML, on one line."""
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in printable(text))


def _block(block: Block, plots: dict[str, str]) -> Iterator[str]:
    if isinstance(block, str):
        yield escape(block)
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Folded):
        yield from _table(block.table)
    elif isinstance(block, Sayings):
        for saying in block.rates:
            remark = f" ({escape(saying.remark)})" if saying.remark else ""
            yield f"- **{escape(saying.title)}**{remark}: {' '.join(map(escape, saying.lines))}"
    elif isinstance(block, Plots):
        shown = [metric for metric in block.metrics if metric.name in plots]
        yield "\n".join(
            f"![{escape(metric.title)} over bits per pixel]({plots[metric.name]})" for metric in shown
        )
    elif isinstance(block, Pictures):
        yield escape(
            "index.html shows the pictures with a slider." if block.scenes else " ".join(block.notes)
        )
    elif isinstance(block, Command):
        yield from (f"    {printable(line)}" for line in block.lines)


def _table(table: Table) -> Iterator[str]:
    yield f"**{escape(table.title)}**"
    yield ""
    yield _line(map(escape, table.head))
    yield _line("---" if i == 0 else ":---" for i in range(len(table.head)))
    yield from (_line(map(_cell, row)) for row in table.rows)
    for note in table.notes:
        yield ""
        yield escape(note)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    name, text, small = escape(cell.codec), escape(cell.text), escape(cell.small)
    if cell.mark == BEST or (name and text):
        name, text = (f"**{name}**" if name else ""), (f"**{text}**" if cell.mark == BEST else text)
    sign = SYMBOLS.get(cell.mark, "")
    return " ".join(part for part in (name, text, f"({small})" if name and small else small, sign) if part)
