"""Two codecs side by side at equal bytes, names hidden and sides shuffled: which do you prefer?

    python scripts/blind.py make RUN OUT [--a sprdiff-tiny] [--b vvc,avif] [--bpp 0.0203] [--side 512]
                                         [--crops 3]
    python scripts/blind.py tell OUT answers.txt

RUN is a working folder of `sprdiff eval --keep`. `make` writes numbered pictures, with the original above and
both sides below, and the file `key.json`, which the judge must not open. With `--side` the pictures are crops
of so many pixels, shown one to one and cut at the same places for every baseline; without it they are whole
photographs. The judge answers every pair with a line "pair001 left", "pair001 right" or "pair001 same".

Among the pairs are controls, at least six of each kind: the same picture twice, which must be called the
same, and the original against a codec, where the original must win. `tell` counts each baseline by itself,
photograph by photograph: a photograph is won if most of its crops are won (two of three). If more than one
control is answered wrongly, nothing is counted.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from sprdiff.errors import SprdiffError
from sprdiff.evaluate.metrics.distortion import Bytes
from sprdiff.evaluate.results import member, read_rows, read_run
from sprdiff.evaluate.targets import Target
from sprdiff.imageio.open import open_rgb

GAP = 8
ORIGINAL = "original"
FEWEST_CONTROLS = 6
MOST_ERRORS = 1
CROPS = 3


@dataclass(frozen=True)
class Pair:
    """The contents of one sheet.

    Attributes:
        kind: ``baseline``, or a control: ``same``, ``original``.
        photo: file name.
        top, left_edge, height, width: of the part shown, in pixels of the photograph.
        left, right: the codecs, or ``original``.
    """

    kind: str
    photo: str
    top: int
    left_edge: int
    height: int
    width: int
    left: str
    right: str

    @property
    def expected(self) -> str | None:
        """The answer that a control must get; None: any."""
        if self.kind == "original":
            return "left" if self.left == ORIGINAL else "right"
        return "same" if self.kind == "same" else None


class Pictures:
    """The photographs of a run, and what the codecs made of them at one target."""

    def __init__(self, run: Path, target: Target, originals: Path | None) -> None:
        about = read_run(run)
        self._run, self._target = run, target
        self._originals = Path(about.folder) if originals is None else originals
        self.sizes = {image.name: (image.height, image.width) for image in about.images}
        self._done = {
            (row.codec, row.image) for row in read_rows(run) if row.status == "ok" and row.target == target
        }

    def photos_of(self, *codecs: str) -> list[str]:
        """Return the photographs that all these codecs have."""
        return [
            photo for photo in sorted(self.sizes) if all((codec, photo) in self._done for codec in codecs)
        ]

    def read(self, codec: str, photo: str) -> Bytes:
        """Read the pixels [H, W, 3] of a decoded picture, or of the original."""
        decoded = member(self._run, "images", codec, self._target, photo, ".png")
        pixels = open_rgb(self._originals / photo if codec == ORIGINAL else decoded).pixels
        if pixels.shape[:2] != self.sizes[photo]:
            raise ValueError(f"{photo} by {codec} has another size than the photograph of the run")
        return pixels


def places(
    size: tuple[int, int], side: int | None, crops: int, draw: random.Random
) -> list[tuple[int, int, int, int]]:
    """Return top, left, height and width of the parts of a photograph that are shown.

    Crops are spread along its longer side, one at a random place of each of so many equal shares.
    """
    height, width = size
    if side is None:
        return [(0, 0, height, width)]
    if side > min(size):
        raise ValueError(f"a photograph of {width}x{height} pixels has no crop of {side}x{side}")
    along, across = max(size), min(size)
    found = []
    for index in range(crops):
        centre = along * (index + draw.random()) / crops
        start = min(max(round(centre - side / 2), 0), along - side)
        other = draw.randint(0, across - side)
        found.append((other, start, side, side) if width >= height else (start, other, side, side))
    return found


def plan(
    pictures: Pictures,
    a: str,
    baselines: Sequence[str],
    side: int | None,
    crops: int,
    controls: int,
    draw: random.Random,
) -> list[Pair]:
    """Return all pairs, controls among them, in random order with random sides.

    Raises:
        ValueError: a baseline has no photograph in common with `a`, or a photograph is smaller than a crop.
    """
    parts = {photo: places(pictures.sizes[photo], side, crops, draw) for photo in pictures.photos_of(a)}
    pairs = []
    for baseline in baselines:
        shared = pictures.photos_of(a, baseline)
        if not shared:
            raise ValueError(f"the run has no photograph of both {a} and {baseline} at this target")
        pairs += [Pair("baseline", photo, *part, a, baseline) for photo in shared for part in parts[photo]]
    for kind in ("same", "original"):
        for index in range(controls):
            shown = [a, *baselines][index % (1 + len(baselines))]
            photo = draw.choice(pictures.photos_of(a, shown))
            pairs.append(
                Pair(kind, photo, *draw.choice(parts[photo]), shown if kind == "same" else ORIGINAL, shown)
            )
    draw.shuffle(pairs)
    return [
        replace(pair, left=pair.right, right=pair.left) if draw.random() < 0.5 else pair for pair in pairs
    ]


def sheet(pictures: Pictures, pair: Pair) -> Image.Image:
    """Draw both sides beside each other, and the original above them."""
    window = slice(pair.top, pair.top + pair.height), slice(pair.left_edge, pair.left_edge + pair.width)
    above, left, right = (
        pictures.read(name, pair.photo)[window] for name in (ORIGINAL, pair.left, pair.right)
    )
    height, width = pair.height, pair.width
    pixels = np.full((2 * height + GAP, 2 * width + GAP, 3), 255, np.uint8)
    middle = (width + GAP) // 2
    pixels[:height, middle : middle + width] = above
    pixels[-height:, :width], pixels[-height:, -width:] = left, right
    return Image.fromarray(pixels)


def make(pictures: Pictures, pairs: Sequence[Pair], a: str, out: Path) -> None:
    """Write the sheets and the key into a folder beside their place, and rename it when all are there.

    Raises:
        ValueError: the folder exists.
    """
    if out.exists():
        raise ValueError(f"{out} exists")
    partial = out.with_name(out.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    named = {f"pair{number:03}": pair for number, pair in enumerate(pairs, 1)}
    for name, pair in named.items():
        sheet(pictures, pair).save(partial / f"{name}.png")
    key = {"a": a, "pairs": {name: asdict(pair) for name, pair in named.items()}}
    (partial / "key.json").write_text(json.dumps(key, indent=1), encoding="utf-8")
    partial.rename(out)


def read_answers(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Read the answer to every pair.

    Raises:
        ValueError: an answer names no pair or no side, or a pair has none or two.
    """
    answers: dict[str, str] = {}
    for line in filter(None, map(str.strip, path.read_text("utf-8").splitlines())):
        name, _, side = line.partition(" ")
        if name not in names or side not in ("left", "right", "same"):
            raise ValueError(f"no answer: {line!r}")
        if name in answers:
            raise ValueError(f"{name} has two answers")
        answers[name] = side
    missing = [name for name in names if name not in answers]
    if missing:
        raise ValueError(
            f"{len(missing)} pairs have no answer: {', '.join(missing[:8])}{' …' * (len(missing) > 8)}"
        )
    return answers


def tell(out: Path, answers: Path) -> tuple[list[str], bool]:
    """Return the lines of the count, and whether the judging counts.

    Raises:
        ValueError: see `read_answers`.
    """
    key = json.loads((out / "key.json").read_text("utf-8"))
    pairs = {name: Pair(**fields) for name, fields in key["pairs"].items()}
    given = read_answers(answers, list(pairs))
    controls = [name for name, pair in pairs.items() if pair.expected]
    wrong = [name for name in controls if given[name] != pairs[name].expected]
    counts = len(wrong) <= MOST_ERRORS
    lines = [f"controls: {len(controls) - len(wrong)} of {len(controls)} right"]
    lines += [f"  {name}: {pairs[name].expected} would have been right, not {given[name]}" for name in wrong]
    if not counts:
        return [
            *lines,
            f"With more than {MOST_ERRORS} control answered wrongly the judging does not count.",
        ], False
    return [*lines, *_counted(key["a"], pairs, given)], True


def _counted(a: str, pairs: dict[str, Pair], given: dict[str, str]) -> Iterator[str]:
    """Return for each baseline how many photographs are won, tied and lost, and which."""
    votes: dict[str, dict[str, Counter[str]]] = {}
    for name, pair in pairs.items():
        if pair.kind == "baseline":
            baseline = pair.right if pair.left == a else pair.left
            preferred = {"left": pair.left, "right": pair.right, "same": "same"}[given[name]]
            votes.setdefault(baseline, {}).setdefault(pair.photo, Counter())[preferred] += 1
    for baseline, photos in sorted(votes.items()):
        found: dict[str, list[str]] = {"won": [], "tied": [], "lost": []}
        for photo, count in sorted(photos.items()):
            most = {side for side in (a, baseline) if 2 * count[side] > count.total()}
            found["won" if a in most else "lost" if baseline in most else "tied"].append(Path(photo).stem)
        won, tied, lost = (len(names) for names in found.values())
        yield f"{a} against {baseline}: {won} of {len(photos)} photographs won, {tied} tied, {lost} lost"
        yield from (f"  {what}: {', '.join(names)}" for what, names in found.items() if names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("run", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--a", default="sprdiff-tiny")
    making.add_argument("--b", default="vvc,avif", help="baselines, with commas")
    target = making.add_mutually_exclusive_group()
    target.add_argument("--bpp", type=float, default=0.0203)
    target.add_argument("--bytes", type=int)
    making.add_argument("--side", type=int, help="of the crops, in pixels; none: whole photographs")
    making.add_argument("--crops", type=int, default=CROPS, help="of each photograph")
    making.add_argument("--controls", type=int, default=FEWEST_CONTROLS, help="of each kind")
    making.add_argument("--originals", type=Path, help="where the photographs are now")
    making.add_argument("--seed", type=int, default=0)
    telling = commands.add_parser("tell")
    telling.add_argument("out", type=Path)
    telling.add_argument("answers", type=Path)
    return parser


def main(arguments: list[str] | None = None) -> int:
    o = _parser().parse_args(arguments)
    try:
        if o.command == "tell":
            lines, counts = tell(o.out, o.answers)
            print("\n".join(lines))
            return 0 if counts else 1
        if o.controls < FEWEST_CONTROLS:
            raise ValueError(
                f"there must be at least {FEWEST_CONTROLS} controls of each kind, not {o.controls}"
            )
        if o.crops < 1 or (o.side is not None and o.side < 1):
            raise ValueError("crops and their side must be above 0")
        target = Target(o.bpp) if o.bytes is None else Target(bytes=o.bytes)
        pictures = Pictures(o.run, target, o.originals)
        pairs = plan(pictures, o.a, o.b.split(","), o.side, o.crops, o.controls, random.Random(o.seed))
        make(pictures, pairs, o.a, o.out)
        print(f"{len(pairs)} pairs in {o.out}")
    except (OSError, ValueError, SprdiffError) as error:
        sys.exit(f"blind.py: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
