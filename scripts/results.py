"""The committed results, `docs/results/kodak`, from a folder of Kodak's images: one command, resumed if it was killed.

    python scripts/results.py KODAK --features squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5

Runs `sprdiff eval` and `sprdiff report` in a working folder, then replaces the published tables, plots and pictures.
Kodak's originals are not published: `sprdiff report` on the working folder makes a page that shows them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from sprdiff.cli import main as sprdiff
from sprdiff.common.files import replace_folder
from sprdiff.evaluate.results import Row, member, read_rows, read_run, write_run

ROOT = Path(__file__).parents[1]
RATES = "0.0138,0.0203,0.028"
CODECS = "sprdiff-tiny,sprdiff-tiny@coarse,vvc,avif,heic,webp,jxl,jpeg2000,jpeg"
PICTURES = ("kodim05", "kodim15", "kodim19", "kodim23")
PICTURE_RATES = (0.0138, 0.0203)
QUALITY = 90
COLUMNS = 3


def run(arguments: list[str]) -> None:
    status = sprdiff(arguments)
    if status:
        sys.exit(status)


def publish_pictures(work: Path, out: Path) -> None:
    """WebP copies of the decoded pictures and a Markdown page of them, codec beside codec at equal bytes."""
    rows = {(row.codec, Path(row.image).stem, row.target_bpp): row for row in read_rows(work) if row.status == "ok"}
    codecs = list(dict.fromkeys(codec for codec, _, _ in rows))
    lines = ["# Decoded pictures at equal bytes", ""]
    lines += ["WebP copies (quality 90). The original is to be seen on the page that `sprdiff report` makes.", ""]
    (out / "pictures").mkdir()
    for stem in PICTURES:
        for rate in PICTURE_RATES:
            chosen = [rows[codec, stem, rate] for codec in codecs if (codec, stem, rate) in rows]
            lines += [f"## {stem} at {rate:g} bpp", "", *gallery([publish(row, work, out) for row in chosen]), ""]
    (out / "pictures.md").write_text("\n".join(lines), encoding="utf-8")


def publish(row: Row, work: Path, out: Path) -> str:
    """Write the copy; returns its cell of the gallery."""
    name = f"pictures/{Path(row.image).stem}_{row.target_bpp:g}_{row.codec.replace('@', '-')}.webp"
    with Image.open(member(work, "images", row.codec, row.target_bpp, row.image, ".png")) as image:
        image.save(out / name, quality=QUALITY, method=6)
    return f"![{row.codec}]({name})<br>{row.codec}, {row.bytes} bytes, MS-SSIM {row.metrics['ms_ssim']:.3f}"


def gallery(cells: list[str]) -> list[str]:
    """A Markdown table of pictures."""
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    lines = ["| " + " | ".join(row + [""] * (COLUMNS - len(row))) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * COLUMNS, *lines[1:]] if lines else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Kodak's images, kodim01.png to kodim24.png")
    parser.add_argument("--features", type=Path, required=True, help="SqueezeNet 1.1 weights of keras-squeezenet")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "kodak", help="working folder, kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "kodak", help="what is replaced")
    parser.add_argument("-j", type=int, default=1, help="processes")
    options = parser.parse_args()
    if options.out.exists() and not (options.out / "rows.jsonl").exists():
        parser.error(f"{options.out} holds something else than results: it would be lost")
    run(["eval", str(options.folder), "--codecs", CODECS, "--bpp", RATES, "--features", str(options.features), "--keep",
         "-j", str(options.j), "-o", str(options.work)])  # fmt: skip
    run(["report", str(options.work), "--originals", str(options.folder)])
    # Made beside its place: what is published stays until all of the new is there.
    partial = options.out.with_name(options.out.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(options.work / "report", partial, ignore=shutil.ignore_patterns("index.html"))
    for name in ("rows.jsonl", "sets.jsonl"):
        shutil.copy(options.work / name, partial / name)
    # Where the originals lay on this machine says nothing to others.
    write_run(partial, replace(read_run(options.work), folder=options.folder.name))
    publish_pictures(options.work, partial)
    replace_folder(partial, options.out)


if __name__ == "__main__":
    main()
