"""Tests of the blind comparison: sides are shuffled, only the key knows them, and controls decide whether the
answers count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from docs_rules import load_script
from report_helpers import HEIGHT, WIDTH, keep_pictures, make_run
from sprdiff.evaluate.targets import Target

blind = load_script("blind")

IMAGES = [f"kodim{n:02d}.png" for n in range(1, 9)]
CODECS = ["sprdiff-tiny", "vvc", "avif"]
SIDE = 64

Key = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, images=IMAGES, codecs=CODECS, rates=(0.0203,))
    keep_pictures(folder, IMAGES, CODECS, (0.0203,))
    return folder


@pytest.fixture
def pairs(run: Path, tmp_path: Path) -> Callable[..., tuple[Path, Key]]:
    def call(*options: str) -> tuple[Path, Key]:
        out = tmp_path / "pairs"
        assert blind.main(["make", str(run), str(out), *options]) == 0
        return out, json.loads((out / "key.json").read_text())["pairs"]

    return call


Make = Callable[..., tuple[Path, Key]]


def read(run: Path, codec: str, photo: str) -> np.ndarray:
    path = run / "originals" / photo
    if codec != "original":
        path = blind.member(run, "images", codec, Target(0.0203), photo, ".png")
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def expected(pair: dict[str, Any]) -> str:
    """Return the right answer to a control, and the baseline's side of any other pair."""
    if pair["left"] == pair["right"]:
        return "same"
    winner = (
        "original" if pair["kind"] == "original" else next(c for c in ("vvc", "avif") if c in pair.values())
    )
    return "left" if pair["left"] == winner else "right"


def answer(out: Path, key: Key, change: Callable[[dict[str, Any]], str | None] = lambda pair: None) -> Path:
    """Answer the controls rightly and prefer the baseline everywhere else, unless `change` says otherwise."""
    path = out.with_name("answers.txt")
    path.write_text("".join(f"{name} {change(pair) or expected(pair)}\n\n" for name, pair in key.items()))
    return path


def told(out: Path, answers: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    capsys.readouterr()
    status = blind.main(["tell", str(out), str(answers)])
    return status, capsys.readouterr().out.splitlines()


def test_the_key_says_what_is_where(run: Path, pairs: Make) -> None:
    out, key = pairs("--side", str(SIDE))
    assert len(key) == len(list(out.glob("pair*.png"))) == 8 * 3 * 2 + 2 * 6
    for name, pair in key.items():
        with Image.open(out / f"{name}.png") as image:
            sheet = np.asarray(image)
        assert sheet.shape == (2 * SIDE + blind.GAP, 2 * SIDE + blind.GAP, 3)
        window = slice(pair["top"], pair["top"] + SIDE), slice(pair["left_edge"], pair["left_edge"] + SIDE)
        middle = (SIDE + blind.GAP) // 2
        assert np.array_equal(sheet[-SIDE:, :SIDE], read(run, pair["left"], pair["photo"])[window])
        assert np.array_equal(sheet[-SIDE:, -SIDE:], read(run, pair["right"], pair["photo"])[window])
        assert np.array_equal(
            sheet[:SIDE, middle : middle + SIDE], read(run, "original", pair["photo"])[window]
        )
        assert not any(codec.encode() in (out / f"{name}.png").read_bytes() for codec in CODECS)


def test_every_baseline_is_met_at_the_same_places_and_controls_are_mixed_in(pairs: Make) -> None:
    _, key = pairs("--side", str(SIDE), "--controls", "7")
    assert Counter(pair["kind"] for pair in key.values()) == {"baseline": 48, "same": 7, "original": 7}
    met: dict[str, set[tuple[str, int, int]]] = {"vvc": set(), "avif": set()}
    for pair in key.values():
        place = (pair["photo"], pair["top"], pair["left_edge"])
        if pair["kind"] == "baseline":
            assert "sprdiff-tiny" in pair.values()
            met[next(baseline for baseline in met if baseline in pair.values())].add(place)
        elif pair["kind"] == "same":
            assert pair["left"] == pair["right"] != "original"
        else:
            assert {pair["left"], pair["right"]} & {"original"} and pair["left"] != pair["right"]
    assert met["vvc"] == met["avif"] and len(met["vvc"]) == 24
    kinds = [pair["kind"] for pair in key.values()]
    assert kinds != sorted(kinds), "the order tells nothing"
    for kind in ("baseline", "original"):
        sides = {
            pair["left"] in ("sprdiff-tiny", "original") for pair in key.values() if pair["kind"] == kind
        }
        assert sides == {False, True}, "sides are shuffled"


def test_whole_photographs_without_a_side(pairs: Make) -> None:
    out, key = pairs("--b", "vvc")
    assert Counter(pair["kind"] for pair in key.values()) == {"baseline": 8, "same": 6, "original": 6}
    with Image.open(out / "pair001.png") as image:
        assert image.size == (2 * WIDTH + blind.GAP, 2 * HEIGHT + blind.GAP)


def test_crops_lie_inside_and_apart() -> None:
    draw = blind.random.Random(0)
    for size in ((1365, 2048), (2048, 1365)):
        found = blind.places(size, 512, 3, draw)
        assert all(0 <= top <= size[0] - 512 and 0 <= left <= size[1] - 512 for top, left, _, _ in found)
        assert all(part[2:] == (512, 512) for part in found) and len(set(found)) == 3
        along = [part[0 if size[0] > size[1] else 1] for part in found]
        assert along == sorted(along), "one in each third of the longer side, in order"


def test_each_baseline_is_counted_by_itself_with_two_of_three(
    pairs: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    out, key = pairs("--side", str(SIDE))
    seen: Counter[tuple[str, str]] = Counter()

    def judge(pair: dict[str, Any]) -> str | None:
        """Answer for three photographs: kodim01 wins two of three against vvc; kodim02 wins, ties and loses
        one each; kodim03 ties."""
        if pair["kind"] != "baseline" or "vvc" not in pair.values():
            return None
        photo = pair["photo"]
        seen[photo, "vvc"] += 1
        ours = "left" if pair["left"] == "sprdiff-tiny" else "right"
        turns: dict[str, list[str | None]] = {
            "kodim01.png": [ours, ours, None],
            "kodim02.png": [ours, "same", None],
            "kodim03.png": ["same"] * 3,
        }
        return turns.get(photo, [None] * 3)[seen[photo, "vvc"] - 1]

    status, lines = told(out, answer(out, key, judge), capsys)
    assert status == 0
    assert lines == [
        "controls: 12 of 12 right",
        "sprdiff-tiny against avif: 0 of 8 photographs won, 0 tied, 8 lost",
        f"  lost: {', '.join(Path(name).stem for name in IMAGES)}",
        "sprdiff-tiny against vvc: 1 of 8 photographs won, 2 tied, 5 lost",
        "  won: kodim01",
        "  tied: kodim02, kodim03",
        "  lost: kodim04, kodim05, kodim06, kodim07, kodim08",
    ]


@pytest.mark.parametrize("kind", ["same", "original"])
def test_one_error_in_the_controls_is_forgiven_and_two_are_not(
    kind: str, pairs: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    out, key = pairs("--side", str(SIDE))

    def spoilt(errors: int) -> Callable[[dict[str, Any]], str | None]:
        left = [errors]

        def judge(pair: dict[str, Any]) -> str | None:
            if pair["kind"] != kind or not left[0]:
                return None
            left[0] -= 1
            return "left" if kind == "same" else "same"

        return judge

    status, lines = told(out, answer(out, key, spoilt(1)), capsys)
    assert status == 0 and lines[0] == "controls: 11 of 12 right" and "would have been right, not" in lines[1]
    assert any("photographs won" in line for line in lines)
    status, lines = told(out, answer(out, key, spoilt(2)), capsys)
    assert status == 1 and lines[0] == "controls: 10 of 12 right"
    assert lines[-1] == "With more than 1 control answered wrongly the judging does not count."
    assert not any("photographs won" in line for line in lines), "then nothing is counted"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["pair999 left"], "no answer: 'pair999 left'"),
        (["pair001 above"], "no answer"),
        (["left"], "no answer"),
        (["pair001 left", "pair001 left"], "pair001 has two answers"),
        (["pair001 left"], "19 pairs have no answer: pair002, .* …"),
    ],
)
def test_wrong_answers(lines: list[str], words: str, pairs: Make, tmp_path: Path) -> None:
    out, _ = pairs("--b", "vvc")
    (tmp_path / "answers.txt").write_text("\n".join(lines))
    with pytest.raises(SystemExit, match=words):
        blind.main(["tell", str(out), str(tmp_path / "answers.txt")])


def test_pairs_are_not_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    with pytest.raises(SystemExit, match="exists"):
        blind.main(["make", str(run), str(tmp_path / "pairs")])
    assert not list((tmp_path / "pairs").iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bpp", "0.5"], "no photograph of both sprdiff-tiny and vvc"),
        (["--bytes", "1200"], "no photograph of both sprdiff-tiny and vvc"),
        (["--bpp", "0"], "above 0"),
        (["--b", "vvc,jpeg"], "no photograph of both sprdiff-tiny and jpeg"),
        (["--side", "129"], "a photograph of 192x128 pixels has no crop of 129x129"),
        (["--side", "0"], "above 0"),
        (["--crops", "0"], "above 0"),
        (["--controls", "5"], "at least 6 controls of each kind, not 5"),
        (["--originals", "nowhere"], "cannot be read: no such file"),
    ],
)
def test_refused(options: list[str], words: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"^blind.py: .*{words}"):
        blind.main(["make", str(run), str(tmp_path / "pairs"), *options])
    assert not (tmp_path / "pairs").exists()
