"""The report of a comparison: one self-contained page, the same tables as Markdown, and the plots as files.

::

    DIR/run.json, rows.jsonl, sets.jsonl ─► data ─► findings, comparisons, plots, pictures ─► document
                                                                            document ─► page, markdown
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sprdiff.common.files import describe, write_atomic
from sprdiff.errors import OutputError

from ..results import ResultsError
from ..targets import Target
from .data import Results, load
from .document import Pictures, document, summary
from .markdown import markdown
from .page import GENERATOR, page
from .pictures import scenes
from .plots import curves

TITLE = "Who is best at these bytes?"
PAGE = "index.html"
TEXT = "report.md"
PLOTS = "plots"


def write(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    reference: str | None = None,
    originals: str | Path | None = None,
    images: int = 4,
    picture_rates: Sequence[Target] | None = None,
) -> Path:
    """Write the report of a folder that ``sprdiff eval`` has filled, and return the path of its page.

    Args:
        folder: the results.
        out: the folder of the report, created if needed; None: ``report`` in `folder`. An older report is
            replaced.
        reference: the codec that the others are compared with; None: the first sprdiff, or else the first.
        originals: the folder of the originals, for the pictures; None: the one that the run has recorded.
        images: the largest number of images with a slider; they need ``sprdiff eval --keep``.
        picture_rates: the targets of these pictures; None: the lowest and the highest.

    Raises:
        ResultsError: the results are damaged or something else, or have no such codec or rate.
        OutputError: `out` contains something else than a report, or cannot be written.
        SprdiffError: a package of the extra `eval` is missing.
    """
    target = Path(folder) / "report" if out is None else Path(out)
    _check_target(target)
    results = load(Path(folder))
    reference = _reference(results, reference)
    rates = _picture_rates(results, picture_rates)
    shown = Pictures(
        *scenes(results, count=images, rates=rates, originals=None if originals is None else Path(originals))
    )
    sections = document(results, reference, shown)
    lead = (
        f"{summary(results)}. Every codec has the same number of bytes for a picture, "
        "and every picture is decoded from its file alone.",
    )
    files = _plots(results)
    files[PAGE] = page(TITLE, lead, sections, results, reference)
    paths = {
        name: f"{PLOTS}/{_plot_name(results, name)}" for name in (metric.name for metric in results.metrics)
    }
    files[TEXT] = markdown(
        TITLE, lead, sections, {name: path for name, path in paths.items() if path in files}
    )
    _write(target, files)
    return target / PAGE


def _reference(results: Results, reference: str | None) -> str:
    if reference is not None and reference not in results.codecs:
        raise ResultsError(f"{results.folder} has no codec {reference}: it has {', '.join(results.codecs)}")
    return results.reference if reference is None else reference


def _picture_rates(results: Results, rates: Sequence[Target] | None) -> list[Target]:
    if rates is None:
        return sorted({results.rates[0], results.rates[-1]})
    for rate in rates:
        if rate not in results.rates:
            raise ResultsError(
                f"{results.folder} has no rate {rate}: it has {', '.join(map(str, results.rates))}"
            )
    return sorted(set(rates))


def _plots(results: Results) -> dict[str, str]:
    drawn = {
        f"{PLOTS}/{_plot_name(results, metric.name)}": curves(results, metric) for metric in results.metrics
    }
    return {path: text for path, text in drawn.items() if text is not None}


def _plot_name(results: Results, name: str) -> str:
    """Return a safe file name; a name in run.json could be a path."""
    index = [metric.name for metric in results.metrics].index(name)
    return f"{name}.svg" if re.fullmatch(r"[A-Za-z0-9_]+", name) else f"metric-{index}.svg"


def _check_target(target: Path) -> None:
    """Refuse a folder with other contents before any work is done."""
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is no folder")
    try:
        if target.is_dir() and any(target.iterdir()) and GENERATOR not in (target / PAGE).read_text("utf-8"):
            raise OutputError(f"{target} holds other files than a report")
    except FileNotFoundError:
        raise OutputError(f"{target} holds other files than a report") from None
    except (OSError, ValueError) as error:
        reason = describe(error) if isinstance(error, OSError) else "its page is no text"
        raise OutputError(f"{target} cannot be used: {reason}") from error


def _write(target: Path, files: dict[str, str]) -> None:
    try:
        (target / PLOTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be made: {describe(error)}") from error
    for name, text in files.items():
        write_atomic(target / name, text.encode("utf-8"), force=True)
