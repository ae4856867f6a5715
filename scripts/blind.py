"""Two codecs side by side at equal bytes, names hidden and sides shuffled: which do you prefer?

    python scripts/blind.py make RUN OUT [--a sprdiff-tiny] [--b vvc] [--bpp 0.0203] [--seed 0]
    python scripts/blind.py tell OUT answers.txt

RUN is a working folder of `sprdiff eval --keep`. `make` writes a picture for each image (original above, left and right
below) and `key.json`: do not open it. An answer is a line "NAME left", "NAME right" or "NAME same"; `tell` counts, and
says which images each codec won.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

from sprdiff.errors import SprdiffError
from sprdiff.evaluate.results import member, read_rows, read_run

GAP = 8


def pair(left: Path, right: Path, original: Path | None) -> Image.Image:
    """Both pictures beside each other, the original above the left one if it is there."""
    with Image.open(left) as a, Image.open(right) as b:
        width, height = a.size
        sheet = Image.new("RGB", (2 * width + GAP, height + (height + GAP if original else 0)), "white")
        top = sheet.height - height
        sheet.paste(a.convert("RGB"), (0, top))
        sheet.paste(b.convert("RGB"), (width + GAP, top))
    if original:
        with Image.open(original) as image:
            sheet.paste(image.convert("RGB"), ((width + GAP) // 2, 0))
    return sheet


def make(run: Path, out: Path, names: tuple[str, str], bpp: float, seed: int) -> int:
    """Write the pairs and the key; how many there are."""
    rows = {(r.codec, r.image): r for r in read_rows(run) if r.status == "ok" and abs(r.target_bpp - bpp) < 1e-9}
    images = sorted(image for codec, image in rows if codec == names[0] and (names[1], image) in rows)
    if not images:
        raise ValueError(f"{run} has no image of both {names[0]} and {names[1]} at {bpp:g} bpp")
    out.mkdir(parents=True)
    folder = Path(read_run(run).folder)
    shuffle, key = random.Random(seed), {}
    for image in images:
        sides = list(names)
        shuffle.shuffle(sides)
        paths = [member(run, "images", codec, bpp, image, ".png") for codec in sides]
        original = folder / image
        stem = Path(image).stem
        pair(paths[0], paths[1], original if original.is_file() else None).save(out / f"{stem}.png")
        key[stem] = {"left": sides[0], "right": sides[1]}
    (out / "key.json").write_text(json.dumps(key, indent=1), encoding="utf-8")
    return len(images)


def tell(out: Path, answers: Path) -> list[str]:
    """Lines of the count: how often each codec was preferred, and on which images.

    Raises:
        ValueError: an answer names no picture or no side.
    """
    key = json.loads((out / "key.json").read_text("utf-8"))
    won: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, answers.read_text("utf-8").splitlines())):
        name, _, side = line.partition(" ")
        if name not in key or side not in ("left", "right", "same"):
            raise ValueError(f"no answer: {line!r}")
        codec = "same" if side == "same" else key[name][side]
        won[codec] += 1
        where.setdefault(codec, []).append(name)
    return [f"{codec}: {count} ({', '.join(where[codec])})" for codec, count in won.most_common()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("run", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--a", default="sprdiff-tiny")
    making.add_argument("--b", default="vvc")
    making.add_argument("--bpp", type=float, default=0.0203)
    making.add_argument("--seed", type=int, default=0)
    telling = commands.add_parser("tell")
    telling.add_argument("out", type=Path)
    telling.add_argument("answers", type=Path)
    o = parser.parse_args(arguments)
    try:
        if o.command == "make":
            print(f"{make(o.run, o.out, (o.a, o.b), o.bpp, o.seed)} pairs in {o.out}")
        else:
            print("\n".join(tell(o.out, o.answers)))
    except (OSError, ValueError, SprdiffError) as error:
        sys.exit(f"blind.py: {error}")
    return 0


if __name__ == "__main__":
    main()
