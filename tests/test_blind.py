"""The blind comparison: sides are shuffled, the key alone knows them, and answers are counted by codec."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from report_helpers import keep_pictures, make_run

SCRIPT = Path(__file__).parents[1] / "scripts" / "blind.py"
spec = importlib.util.spec_from_file_location("blind", SCRIPT)
assert spec is not None and spec.loader is not None
blind = importlib.util.module_from_spec(spec)
spec.loader.exec_module(blind)

IMAGES = [f"kodim{n:02d}.png" for n in range(1, 9)]
CODECS = ["sprdiff-tiny", "vvc"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, images=IMAGES, codecs=CODECS, rates=(0.0203,))
    keep_pictures(folder, IMAGES, CODECS, (0.0203,))
    return folder


def test_the_key_says_which_picture_is_where(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    assert blind.main(["make", str(run), str(out)]) == 0
    key = json.loads((out / "key.json").read_text())
    assert sorted(key) == [Path(name).stem for name in IMAGES]
    assert {sides["left"] for sides in key.values()} == set(CODECS), "sides are shuffled"
    for name, sides in key.items():
        sheet = np.asarray(Image.open(out / f"{name}.png"))
        for side in ("left", "right"):
            with Image.open(blind.member(run, "images", sides[side], 0.0203, f"{name}.png", ".png")) as image:
                picture = np.asarray(image.convert("RGB"))
            height, width = picture.shape[:2]
            found = sheet[-height:, :width] if side == "left" else sheet[-height:, -width:]
            assert np.array_equal(found, picture)
        assert not any(codec.encode() in (out / f"{name}.png").read_bytes() for codec in CODECS)


def test_answers_are_counted_by_codec(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs"
    blind.main(["make", str(run), str(out), "--seed", "3"])
    key = json.loads((out / "key.json").read_text())
    names = sorted(key)
    lines = [f"{n} left" if key[n]["left"] == "vvc" else f"{n} right" for n in names[:5]] + [f"{names[5]} same"]
    answers = tmp_path / "answers.txt"
    answers.write_text("\n".join(lines) + "\n\n")
    capsys.readouterr()
    blind.main(["tell", str(out), str(answers)])
    told = capsys.readouterr().out.splitlines()
    assert told == [f"vvc: 5 ({', '.join(names[:5])})", f"same: 1 ({names[5]})"]


@pytest.mark.parametrize("answer", ["kodim99 left", "kodim01 above", "left"])
def test_wrong_answers(answer: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    blind.main(["make", str(run), str(out)])
    (tmp_path / "answers.txt").write_text(answer)
    with pytest.raises(SystemExit, match="no answer"):
        blind.main(["tell", str(out), str(tmp_path / "answers.txt")])


def test_pairs_are_not_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    with pytest.raises(SystemExit, match="exists"):
        blind.main(["make", str(run), str(tmp_path / "pairs")])


def test_nothing_to_compare(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no image of both sprdiff-tiny and vvc"):
        blind.main(["make", str(run), str(tmp_path / "pairs"), "--bpp", "0.5"])
