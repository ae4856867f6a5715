"""Tests of the scripts around training: the whole recipe of `tiny`, and the run on a machine with a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import photo
from docs_rules import load_script
from sprdiff import Codec
from sprdiff.train.checkpoints import load
from sprdiff.train.latents.store import SIDE
from training_helpers import SMALL_RUN, nano_model, with_command, write_checkpoint, write_photos

pytest_plugins = ("training_fixtures",)

ROOT = Path(__file__).parents[2]
gpu_pack: Any = load_script("gpu_pack")


def environment(folder: Path) -> dict[str, str]:
    """Return an environment whose command ``sprdiff`` runs the sources under test."""
    return with_command(folder, "-m sprdiff", PYTHONPATH=str(ROOT / "src"), PYTHON=sys.executable)


def run(*command: str, env: dict[str, str], **changes: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT, **changes)


# ---------------------------------------------------------------------------- runs/tiny.sh


def test_the_whole_recipe_from_photographs_to_a_file_decoded(tmp_path: Path) -> None:
    """After two steps of each stage there is a weights folder that encodes and decodes."""
    photos, out, weights = write_photos(tmp_path / "photos", 2, SIDE), tmp_path / "run", tmp_path / "weights"
    env = environment(tmp_path)
    command = [
        "bash",
        "runs/tiny.sh",
        "--data",
        str(photos),
        "--out",
        str(out),
        "--weights",
        str(weights),
        "--preset",
        "nano",
        "--count",
        "4",
        "--steps",
        "2",
    ]
    train = ["--train", *SMALL_RUN, "--precision", "fp32"]
    done = run(*command, *train, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = ("codec", "vae", "early/flow", "flow", "guided/flow", "polish")
    steps = {name: load(out / f"{name}.safetensors").step for name in parts}
    assert steps == {"codec": 2, "vae": 2, "early/flow": 2, "flow": 4, "guided/flow": 6, "polish": 2}
    codec, picture = Codec(weights, threads=1), photo(128, 192)
    decoded = codec.decode(codec.encode(picture, quality=50))
    assert np.asarray(getattr(decoded, "image", decoded)).shape == picture.shape

    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    again = run(*command, *train, env=env)
    assert again.returncode == 0, again.stderr[-3000:]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == times, (
        "a finished stage was run again"
    )


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "--data is needed"), (["--colour", "red"], "unknown argument --colour")]
)
def test_wrong_arguments_of_the_recipe(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run("bash", "runs/tiny.sh", *arguments, env=environment(tmp_path))
    assert done.returncode == 2 and message in done.stderr


# ---------------------------------------------------------------------------- scripts/gpu_run.sh


def fill_wheels(folder: Path) -> None:
    """Put stand-ins for the packages into the folder, because the tests have no network."""
    folder.mkdir(parents=True)
    for name in gpu_pack.PACKAGES:
        (folder / f"{name}.whl").write_bytes(bytes(1000))


def pack(out: Path, *arguments: str) -> int:
    if not (out / "wheels").exists():
        fill_wheels(out / "wheels")
    return gpu_pack.main(["pack", "codec", "--out", str(out), *arguments])


def names(tar: Path) -> set[str]:
    with tarfile.open(tar) as found:
        return set(found.getnames())


def test_what_travels_fits(tmp_path: Path, start: Path) -> None:
    photos, out = write_photos(tmp_path / "photos", 6, 96), tmp_path / ".gpu"
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        tar.add(write_photos(tmp_path / "more", 1, 128) / "made-0.png", "deep/other.png")
    given = ["--data", str(photos), "--data", str(tmp_path / "more.tar"), "--least", "0"]
    assert pack(out, *given, "--valid", str(photos), "--init", str(start), "--mib", "1000") == 0
    assert names(out / "photos.tar") == {*(f"made-{i}.png" for i in range(6)), "other.png"}
    assert names(out / "valid.tar") == {f"made-{i}.png" for i in range(6)}
    (checkpoint,) = (out / "init").iterdir()
    assert checkpoint.stat().st_size < 0.6 * start.stat().st_size
    assert load(checkpoint).networks == load(start).networks

    fixed = gpu_pack.tree_size() + gpu_pack.folder_size(out / "wheels")
    room = 60_000
    assert pack(out, *given, "--mib", str((fixed + room) / 2**20)) == 0
    assert 0 < len(names(out / "photos.tar")) < 7
    assert gpu_pack.tree_size() + gpu_pack.folder_size(out) <= fixed + room
    assert not (out / "valid.tar").exists() and not list((out / "init").iterdir()), "of an earlier call"


def test_too_little_room_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    mib = (gpu_pack.tree_size() + 2**20) / 2**20
    assert pack(tmp_path / ".gpu", "--data", str(photos), "--mib", str(mib)) == 1
    assert "MiB are left for photographs, fewer than 10" in capsys.readouterr().err


def test_checkpoints_come_home_in_pieces(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_pack, "PIECE", 100_000)
    folder = tmp_path / "run"
    write_checkpoint(folder / "codec.safetensors", nano_model())
    rows = [{"step": 50 * i, "lr": 0.1, "seconds_per_step": 0.5, "loss": 1.0 / i} for i in range(1, 101)]
    rows += [{"step": 5000, "small": {"0.0203": [25.1, 0.88]}}]  # type: ignore[dict-item]
    (folder / "codec.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "codec.safetensors.99").write_bytes(b"of an earlier part")
    assert gpu_pack.main(["home", "codec", str(folder), str(tmp_path / "home")]) == 0
    pieces = sorted((tmp_path / "home").glob("codec.safetensors.*"))
    assert len(pieces) > 2 and all(p.stat().st_size <= 100_000 for p in pieces) and pieces[-1].suffix != ".99"
    assert gpu_pack.main(["join", "codec", str(tmp_path / "home"), str(tmp_path / "joined")]) == 0
    assert load(tmp_path / "joined").networks == load(folder / "codec.safetensors").networks
    table = (tmp_path / "home" / "codec.md").read_text().splitlines()
    assert table[0] == "| step | lr | seconds_per_step | loss |" and len(table) == 2 + 20 + 4
    assert table[-1] == '- small: {"0.0203": [25.1, 0.88]}' and "| 5000 | 0.1 | 0.5 | 0.01 |" in table


def test_a_lost_piece_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "codec.safetensors.00").write_bytes(bytes(100))
    assert gpu_pack.main(["join", "codec", str(tmp_path), str(tmp_path / "joined")]) == 1


@pytest.mark.parametrize("arguments", [[], ["fly"], ["part", "1"], ["part", "1", "codec", "--colour"]])
def test_wrong_arguments_of_the_run(arguments: list[str], tmp_path: Path) -> None:
    done = run("bash", "scripts/gpu_run.sh", *arguments, env=environment(tmp_path))
    assert done.returncode == 2 and "scripts/gpu_run.sh pack STAGE" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["codec", "vae"])
def test_both_parts_run_without_a_hand_on_them(stage: str, tmp_path: Path, start: Path) -> None:
    """Both run in a copy of the tree, without a network, for a few seconds each; the second goes on where the
    first stopped."""
    tree = tmp_path / "tree"
    for folder in ("src", "scripts"):
        tree.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / folder), str(tree)], check=True)
    photos, valid = write_photos(tmp_path / "photos", 2, SIDE), write_photos(tmp_path / "valid", 1, 128)
    given = [
        "--data",
        str(photos),
        "--valid",
        str(valid),
        "--init",
        str(start),
        "--least",
        "0",
        "--mib",
        "1000",
    ]
    assert pack(tree / ".gpu", *given) == 0
    env = {
        **environment(tmp_path),
        "OUT": str(tmp_path / "out"),
        "GPU_RUN": str(tmp_path / "run"),
        "DEVICE": "cpu",
        "PRESET": "nano",
        "COUNT": "4",
        "RESERVE": "0",
    }
    reached = []
    for part in ("1", "2"):
        options = ["--", "--threads", "1", "--batch", "2", "--crop", "64"]
        done = run(
            "bash",
            str(tree / "scripts/gpu_run.sh"),
            "part",
            part,
            stage,
            "--minutes",
            "0.1",
            *options,
            env=env,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert gpu_pack.main(["join", stage, str(tmp_path / "out"), str(tmp_path / "joined")]) == 0
        reached.append(load(tmp_path / "joined").step)
        assert {f"{stage}.jsonl", f"{stage}.md", f"{stage}.safetensors.00"} <= set(
            os.listdir(tmp_path / "out")
        )
    assert 0 < reached[0] < reached[1]
