"""Makes the committed results, `docs/results/`, from folders of photographs: one command for each set,
resumed if it was killed.

    python scripts/results.py kodak KODAK --features squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5
    python scripts/results.py clic CLIC --features squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5
    python scripts/results.py pages

A set runs `sprdiff eval` and `sprdiff report` in a working folder. It replaces the published tables, plots
and pictures, and then the tables that pages show of them, which `pages` does alone. These stand between
``<!-- results: … -->`` and ``<!-- end -->``. The originals are not published; `sprdiff report` on the working
folder makes a page that shows them. Where there is no working folder yet, rows and pictures of codecs of the
same version are taken from what is published, so that new weights alone are measured.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
from PIL import Image

from sprdiff.cli import main as sprdiff
from sprdiff.common.files import whole_folder, write_atomic
from sprdiff.common.structs import to_json
from sprdiff.evaluate.codecs.base import ImageCodec
from sprdiff.evaluate.codecs.registry import parse_codecs
from sprdiff.evaluate.report import comparisons
from sprdiff.evaluate.report.data import Results, budget, load
from sprdiff.evaluate.report.findings import verdict
from sprdiff.evaluate.report.published import FROM_FILES, published_for
from sprdiff.evaluate.results import ROWS, RUN, Row, member, read_rows, read_run, write_run
from sprdiff.evaluate.results import SETS as SETS_FILE
from sprdiff.evaluate.targets import Target

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "docs" / "results"
CODECS = "sprdiff-tiny,sprdiff-tiny@coarse,vvc,avif,heic,webp,jxl,jpeg2000,jpeg"
QUALITY = 90
COLUMNS = 3
SHOWN = (768, 512)
"""Width and height of the part that is shown of a larger picture, one to one: made smaller it would hide its
faults."""


@dataclass(frozen=True)
class Set:
    """A set of photographs, and what is measured and shown of them.

    Attributes:
        title: for headings.
        rates: bits per pixel, as `sprdiff eval` takes them.
        pictures: names of the photographs shown, without extension, with left and top edge of the part shown.
        picture_rates: at which they are shown.
    """

    title: str
    rates: str
    pictures: dict[str, tuple[int, int]]
    picture_rates: tuple[Target, ...]


SETS = {
    "kodak": Set(
        "Kodak",
        "0.0138,0.0203,0.028",
        dict.fromkeys(("kodim05", "kodim15", "kodim19", "kodim23"), (0, 0)),
        (Target(0.0138), Target(0.0203)),
    ),
    "clic": Set(
        "CLIC",
        "0.005,0.0203",
        {"val_0c49a5cce349": (800, 500), "val_2a2420f929cd": (530, 200), "val_ddcd24d99f48": (640, 420)},
        (Target(0.005), Target(0.0203)),
    ),
}
NAMES = {
    "sprdiff-tiny": "**SPRDiff `tiny`**, decoded",
    "sprdiff-tiny@coarse": "**SPRDiff `tiny`**, `--realism 0`",
    "vvc": "VVC",
    "avif": "AVIF",
    "heic": "HEIC",
    "webp": "WebP",
    "jxl": "JPEG XL",
    "jpeg2000": "JPEG 2000",
    "jpeg": "JPEG",
}
TITLES = {
    "psnr": "PSNR, dB ↑",
    "ms_ssim": "MS-SSIM ↑",
    "ssimulacra2": "SSIMULACRA2 ↑",
    "feature_distance": "feature distance* ↓",
    "frechet_squeezenet": "Fréchet distance* ↓",
}
DIGITS = {"psnr": 2, "ms_ssim": 3, "ssimulacra2": 1, "feature_distance": 2, "frechet_squeezenet": 0}
PREFIX, BASELINE = "sprdiff-", "vvc"
READINGS = {"sprdiff-tiny": "decoded", "sprdiff-tiny@coarse": "`--realism 0`"}
BLOCK = re.compile(r"(<!-- results: (\w+) (\w+)(?: ([\d.]+))? -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = (
    ROOT / "README.md",
    PUBLISHED / "README.md",
    ROOT / "docs" / "comparison.md",
    ROOT / "src" / "sprdiff" / "weights" / "tiny" / "MODEL_CARD.md",
)


def run(arguments: list[str]) -> None:
    status = sprdiff(arguments)
    if status:
        sys.exit(status)


def publish_pictures(chosen: Set, work: Path, before: Path, out: Path) -> None:
    """Write WebP copies of the decoded pictures, and a Markdown page of them, codec beside codec at equal
    bytes. The copy of a picture that was not decoded again is that in the folder `before`."""
    rows = {
        (row.codec, Path(row.image).stem, row.target): row for row in read_rows(work) if row.status == "ok"
    }
    codecs = [info.name for info in read_run(work).codecs]
    lines = [f"# {chosen.title}: decoded pictures at equal bytes", ""]
    lines += [
        "The pictures are WebP copies (quality 90).",
        "The page that `sprdiff report` makes shows the originals.",
        "",
    ]
    if any(place != (0, 0) for place in chosen.pictures.values()):
        lines += [
            f"A part of {SHOWN[0]}x{SHOWN[1]} pixels of each picture is shown, one to one; "
            "bytes are those of the whole picture.",
            "",
        ]
    (out / "pictures").mkdir()
    for stem, place in chosen.pictures.items():
        for rate in chosen.picture_rates:
            found = [rows[codec, stem, rate] for codec in codecs if (codec, stem, rate) in rows]
            if not found:  # with --limit
                continue
            lines += [
                f"## {stem} at {rate}",
                "",
                *gallery([publish(row, place, work, before, out) for row in found]),
                "",
            ]
    (out / "pictures.md").write_text("\n".join(lines), encoding="utf-8")


def publish(row: Row, place: tuple[int, int], work: Path, before: Path, out: Path) -> str:
    """Write the copy; return its cell of the gallery."""
    name = f"pictures/{Path(row.image).stem}_{row.target.folder}_{row.codec.replace('@', '-')}.webp"
    left, top = place
    decoded = member(work, "images", row.codec, row.target, row.image, ".png")
    if decoded.exists() or not (before / name).exists():
        with Image.open(decoded) as image:
            whole = max(image.size) <= max(SHOWN)
            box = (0, 0, *image.size) if whole else (left, top, left + SHOWN[0], top + SHOWN[1])
            image.crop(box).save(out / name, quality=QUALITY, method=6)
    else:
        shutil.copy(before / name, out / name)
    return f"![{row.codec}]({name})<br>{row.codec}, {row.bytes} bytes, MS-SSIM {row.metrics['ms_ssim']:.3f}"


def gallery(cells: list[str]) -> list[str]:
    """Return a Markdown table of pictures."""
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    lines = ["| " + " | ".join(row + [""] * (COLUMNS - len(row))) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * COLUMNS, *lines[1:]] if lines else []


def means(results: Results, rate: Target) -> list[str]:
    """Return the table of one rate: a row for each codec, ours first, then by MS-SSIM; the best of each
    column is bold."""
    verdicts = [verdict(results, metric, rate) for metric in results.metrics if metric.name in TITLES]
    by_score = {item.metric.name: item for item in verdicts}["ms_ssim"].means
    ours = [codec for codec in results.codecs if codec.startswith("sprdiff")]
    baselines = sorted(by_score.keys() - ours, key=lambda codec: -by_score[codec].mean)
    lines = [
        f"| | {' | '.join(TITLES[item.metric.name] for item in verdicts)} |",
        "|---|" + "---|" * len(verdicts),
    ]
    for codec in [*ours, *baselines]:
        lacking, total = results.missing(codec, rate), results.reached(rate)
        cells = [NAMES.get(codec, codec) + (f" ({total - lacking} of {total} pictures)" if lacking else "")]
        for item in verdicts:
            mean = item.means.get(codec)
            text = "–" if mean is None else figure(item.metric.name, mean.mean)
            cells.append(f"**{text}**" if codec == item.best else text)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"{len(results.images)} pictures, {budget(results, rate)}."]
    return lines


def figure(name: str, value: float, sign: str = "") -> str:
    """Write a figure as tables show it: with the digits that mean something, no 0 before the point of
    MS-SSIM, a true minus."""
    text = f"{value:{sign}.{DIGITS[name]}f}"
    return (text.replace("0.", ".") if name == "ms_ssim" else text).replace("-", "\N{MINUS SIGN}")


def best(results: Results) -> list[str]:
    """Return the table of the best codec in each metric, with its ties: a row for each rate."""
    metrics = [metric for metric in results.metrics if metric.name in TITLES]
    heads = [TITLES[metric.name].split(",")[0].rstrip(" ↑↓*") for metric in metrics]
    lines = [f"| at | {' | '.join(f'best in {head}' for head in heads)} |", "|---|" + "---|" * len(metrics)]
    for rate in results.rates:
        found = [verdict(results, metric, rate) for metric in metrics]
        cells = [
            "–"
            if item.best is None
            else NAMES.get(item.best, item.best)
            + (f" (tie with {', '.join(NAMES.get(tie, tie) for tie in item.ties)})" if item.ties else "")
            for item in found
        ]
        lines.append(f"| {rate} | {' | '.join(cells)} |")
    return lines


def against(results: Results) -> list[str]:
    """Return our two readings beside VVC: differences of PSNR and MS-SSIM, and shares of its two
    distances."""
    metrics = {metric.name: metric for metric in results.metrics}
    lines = [
        "| bpp | | PSNR, dB | MS-SSIM | feature distance, of VVC's | Fréchet distance, of VVC's |",
        "|---|---|---|---|---|---|",
    ]
    for rate in results.rates:
        for codec, reading in READINGS.items():
            cells = [f"{rate.bpp:g}" if rate.bpp else str(rate), reading]
            both = not (results.missing(codec, rate) or results.missing(BASELINE, rate))
            for name in ("psnr", "ms_ssim", "feature_distance", "frechet_squeezenet"):
                known = both and name in metrics
                pair = [
                    results.mean(who, rate, metrics[name]) if known else None for who in (codec, BASELINE)
                ]
                cells.append(compared(name, *pair))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def compared(name: str, ours: float | None, theirs: float | None) -> str:
    """Write a difference with its sign, or a share."""
    if ours is None or theirs is None:
        return "–"
    if name in ("psnr", "ms_ssim"):
        return figure(name, ours - theirs, sign="+")
    return f"{ours / theirs:.2f}"


class Goal(NamedTuple):
    """What we set out to reach at one rate."""

    decoded: tuple[float, float]
    """PSNR in dB and MS-SSIM: what the paper reports of its own full-scale model."""
    shares: tuple[float, float]
    """Feature and Fréchet distance of the decoded picture, of VVC's."""
    coarse: tuple[float, float]
    """PSNR in dB and MS-SSIM of x̃, against VVC."""


GOALS = {
    0.0138: Goal((21.96, 0.752), (0.75, 0.45), (-0.1, 0.010)),
    0.0203: Goal((22.59, 0.788), (0.75, 0.45), (-0.1, 0.010)),
    0.028: Goal((22.98, 0.806), (0.75, 0.45), (-0.2, 0.010)),
}
"""On Kodak, by rate in bits per pixel."""


def goals(results: Results) -> list[str]:
    """Return what was reached beside what we set out to reach, which stands in brackets."""
    metrics = {metric.name: metric for metric in results.metrics}
    lines = [
        "| bpp | decoded: PSNR, MS-SSIM | feature distance, of VVC's | Fréchet distance, of VVC's "
        "| `--realism 0`, against VVC: PSNR, MS-SSIM |",
        "|---|---|---|---|---|",
    ]
    for rate in results.rates:
        goal = GOALS[rate.bpp or 0.0]

        def mean(codec: str, name: str, rate: Target = rate) -> float | None:
            return results.mean(codec, rate, metrics[name]) if name in metrics else None

        closeness, distances = ("psnr", "ms_ssim"), ("feature_distance", "frechet_squeezenet")
        decoded, coarse = READINGS
        reached = ["–" if (m := mean(decoded, name)) is None else figure(name, m) for name in closeness]
        asked = [figure(name, value) for name, value in zip(closeness, goal.decoded, strict=True)]
        shares = [compared(name, mean(decoded, name), mean(BASELINE, name)) for name in distances]
        ahead = [compared(name, mean(coarse, name), mean(BASELINE, name)) for name in closeness]
        wanted = [figure(name, value, "+") for name, value in zip(closeness, goal.coarse, strict=True)]
        cells = [
            f"{rate.bpp:g}",
            f"{' / '.join(reached)} ({' / '.join(asked)})",
            *(f"{share} ({limit:g})" for share, limit in zip(shares, goal.shares, strict=True)),
            f"{' / '.join(ahead)} ({' / '.join(wanted)})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def card(results: Results) -> list[str]:
    """Return the table of the model card: our readings alone, at all rates."""
    metrics = [metric for metric in results.metrics if metric.name in TITLES]
    lines = [
        f"| at most | reading | bpp | {' | '.join(TITLES[metric.name] for metric in metrics)} |",
        "|---|---|---|" + "---|" * len(metrics),
    ]
    for rate in results.rates:
        for codec, reading in READINGS.items():
            values = [results.mean(codec, rate, metric) for metric in metrics]
            shown = [
                "–" if value is None else figure(metric.name, value)
                for metric, value in zip(metrics, values, strict=True)
            ]
            cells = [str(rate), reading, f"{results.mean_bpp(codec, rate):.4f}".removeprefix("0"), *shown]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def costs(results: Results) -> list[str]:
    """Return the table of seconds and memory of the report, under the names that pages use."""
    table = comparisons.costs(results)
    lines = [f"| | {' | '.join(table.head[1:])} |", "|---|" + "---|" * (len(table.head) - 1)]
    for name, *cells in table.rows:
        lines.append(f"| {NAMES.get(name.codec, name.codec)} | {' | '.join(cell.text for cell in cells)} |")
    return [*lines, "", *table.notes]


def published(results: Results, rate: Target) -> list[str]:
    """Return what learned codecs publish at the rates nearest to this one, below our two readings.

    Only PSNR and MS-SSIM: the others depend on networks and settings that differ between papers.
    """
    metrics = {metric.name: metric for metric in results.metrics}
    lines = ["| | bpp | PSNR, dB ↑ | MS-SSIM ↑ | from |", "|---|---|---|---|---|"]
    for codec in (codec for codec in results.codecs if codec.startswith(PREFIX)):
        values = [results.mean(codec, rate, metrics[name]) for name in ("psnr", "ms_ssim")]
        lines.append(
            quotation(NAMES.get(codec, codec), results.mean_bpp(codec, rate), values, "measured here")
        )
    scores = {curve.codec: curve for curve in published_for("ms_ssim", results.images)}
    for curve in published_for("psnr", results.images):
        at = min(curve.rates, key=lambda bpp: abs(bpp - (rate.bpp or 0)))
        score = scores.get(curve.codec)
        accuracy = "" if curve.accuracy == FROM_FILES else f", {curve.accuracy}"
        values = [dict(zip(c.rates, c.values, strict=True)).get(at) if c else None for c in (curve, score)]
        lines.append(quotation(curve.codec, at, values, f"{curve.source}{accuracy}"))
    return lines


def quotation(name: str, bpp: float | None, values: Sequence[float | None], source: str) -> str:
    """Return a row of the table of `published`."""
    cells = ["–" if bpp is None else f"{bpp:.4f}".removeprefix("0")]
    for metric, value in zip(("psnr", "ms_ssim"), values, strict=True):
        cells.append("–" if value is None else figure(metric, value))
    return f"| {' | '.join([name, *cells, source])} |"


WHOLE = {"best": best, "against": against, "costs": costs, "goals": goals, "card": card}
"""Tables of all rates, by the word that marks them."""
AT_A_RATE = {"means": means, "published": published}
"""Tables of one rate."""


def filled(text: str) -> str:
    """Return a page with the tables between its marks made anew from the published results."""

    def table(found: re.Match[str]) -> str:
        start, kind, name, rate, end = found.groups()
        results = load(PUBLISHED / name)
        lines = WHOLE[kind](results) if rate is None else AT_A_RATE[kind](results, Target(float(rate)))
        return start + "\n".join(["", *lines, "", ""]) + end

    return BLOCK.sub(table, text)


def write_pages() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8")), "utf-8")


def forget_outdated(work: Path, codecs: Sequence[ImageCodec]) -> int:
    """Drop our rows that other weights made, and say how many; those of the baselines stay and are not
    repeated.

    `sprdiff eval` refuses a folder that holds another version's rows: whoever compares must know. Here all of
    them are replaced together.
    """
    if not (work / ROWS).exists():
        return 0
    now = {codec.name: codec.version() for codec in codecs if codec.name.startswith(PREFIX)}
    rows = read_rows(work)
    kept = [row for row in rows if row.version == now.get(row.codec, row.version)]
    if len(kept) < len(rows):
        write_atomic(work / ROWS, b"".join(map(to_json, kept)), force=True)
    return len(rows) - len(kept)


def adopt(published: Path, work: Path, codecs: Sequence[ImageCodec]) -> int:
    """Begin a working folder with what is published, but for rows of codecs that have another version now,
    and say how many rows it has then."""
    if (work / RUN).exists() or not (published / RUN).exists():
        return 0
    now = {codec.name: codec.version() for codec in codecs}
    rows = [row for row in read_rows(published) if row.version == now.get(row.codec, row.version)]
    with whole_folder(work) as partial:
        for file in (RUN, SETS_FILE):
            shutil.copy(published / file, partial / file)
        write_atomic(partial / ROWS, b"".join(map(to_json, rows)), force=False)
    return len(rows)


def publish_set(chosen: Set, options: argparse.Namespace) -> None:
    """Measure what is not measured yet, and replace what is published of a set."""
    work, out, folder = options.work, options.out, options.folder
    codecs = parse_codecs(options.codecs.split(","))
    adopted = 0 if options.fresh else adopt(out, work, codecs)
    if adopted:
        print(f"{work}: {adopted} rows are taken from {out}")
    outdated = forget_outdated(work, codecs)
    if outdated:
        print(f"{work}: {outdated} rows are of other weights and are measured again")
    limit = [] if options.limit is None else ["--limit", str(options.limit)]
    run(
        [
            "eval",
            str(folder),
            "--codecs",
            options.codecs,
            "--bpp",
            chosen.rates,
            "--features",
            str(options.features),
            "--keep",
            "-j",
            str(options.j),
            *limit,
            "-o",
            str(work),
        ]
    )
    run(["report", str(work), "--originals", str(folder)])
    with whole_folder(out) as partial:
        page = shutil.ignore_patterns("index.html")
        shutil.copytree(work / "report", partial, ignore=page, dirs_exist_ok=True)
        for file in (ROWS, SETS_FILE):
            shutil.copy(work / file, partial / file)
        # Where the originals lay on this machine says nothing to others.
        write_run(partial, msgspec.structs.replace(read_run(work), folder=folder.name))
        publish_pictures(chosen, work, out, partial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="set", required=True)
    commands.add_parser("pages", help="only the tables of the pages, from what is published")
    for name, chosen in SETS.items():
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path, help=f"the photographs of {chosen.title}")
        command.add_argument(
            "--features", type=Path, required=True, help="SqueezeNet 1.1 weights of keras-squeezenet"
        )
        command.add_argument("--work", type=Path, default=ROOT / "build" / name, help="working folder, kept")
        command.add_argument("--out", type=Path, default=PUBLISHED / name, help="what is replaced")
        command.add_argument("-j", type=int, default=1, help="processes")
        command.add_argument("--codecs", default=CODECS, help="fewer of them, where time is short")
        command.add_argument("--fresh", action="store_true", help="take no row from what is published")
        command.add_argument("--limit", type=int, help="the first so many photographs only")
    options = parser.parse_args()
    if options.set != "pages":
        if options.out.exists() and not (options.out / ROWS).exists():
            parser.error(f"{options.out} holds something else than results: it would be lost")
        publish_set(SETS[options.set], options)
    write_pages()


if __name__ == "__main__":
    main()
