"""Tests of packets as a user meets them: a photograph goes through a link that loses some, with the shipped
weights."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import photo
from packet_helpers import file_of
from source_helpers import COMPOSITE, source_type
from sprdiff.cli import main
from sprdiff.codec import Codec


@pytest.fixture(scope="module")
def picture() -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 20, (256, 384, 3))
    Image.fromarray(np.clip(photo(256, 384) + noise, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(picture)


def ok(*arguments: str) -> None:
    assert main([*arguments, "--threads", "1"]) == 0


def lose(folder: str, *numbers: int) -> None:
    for number in numbers:
        (path,) = Path(folder).glob(f"*-{number:03d}.pkt")
        path.unlink()


def text_of(path: str) -> dict[str, object]:
    with Image.open(path) as image:
        about: dict[str, object] = json.loads(image.text["sprdiff"])  # type: ignore[attr-defined]
    return about


def test_a_photograph_of_which_a_quarter_is_lost_comes_out_whole(capsys: pytest.CaptureFixture[str]) -> None:
    ok("encode", "photo.png", "photo.sprd", "--max-bytes", "500")
    ok("packets", "photo.png", "-o", "mesh", "--payload", "90", "--count", "8", "--max-bytes", "500")
    assert len(list(Path("mesh").iterdir())) == 8
    lose("mesh", 2, 5)
    capsys.readouterr()
    ok("join", "mesh", "-o", "back.sprd")
    assert "whole" in (captured := capsys.readouterr()).out and captured.err == ""
    assert Path("back.sprd").read_bytes() == Path("photo.sprd").read_bytes()
    ok("join", *map(str, Path("mesh").iterdir()), "-o", "back.png")
    assert "whole" not in text_of("back.png") and source_type("back.png") == COMPOSITE
    with Image.open("back.png") as image:
        wanted = Codec(threads=1).decode(Path("photo.sprd").read_bytes())
        assert np.array_equal(np.asarray(image), np.asarray(wanted))


def test_more_lost_than_parity_gives_a_part_and_names_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--payload", "90", "--parity", "1", "--max-bytes", "500")
    ok("packets", "photo.png", "-o", "mesh", *options)
    whole = sorted(path.name for path in Path("mesh").iterdir())
    lose("mesh", 2, 4, 5)
    capsys.readouterr()
    ok("join", "mesh", "-o", "back.png")
    name = whole[0].split("-")[1]
    captured = capsys.readouterr()
    assert captured.err == (
        f"sprdiff: warning: stream {name} is cut off: "
        "packets 2,4,5 are missing, any 2 of them would complete it\n"
    )
    assert "in part" in captured.out
    about = text_of("back.png")
    assert about["whole"] is False and 0 < float(str(about["known"])) < 1
    ok("packets", "photo.png", "-o", "again", "--only", "2,5", *options)
    assert [path.name for path in sorted(Path("again").iterdir())] == [whole[2], whole[5]]
    assert main(["join", "mesh", "again", "-o", "back.png"]) == 1, "a picture is never overwritten unasked"
    capsys.readouterr()
    ok("join", "mesh", "again", "-o", "back.png", "-f")
    assert "whole" in capsys.readouterr().out


def test_without_the_first_packet_nothing_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ok("packets", "photo.png", "-o", "mesh", "--payload", "200")
    lose("mesh", 0)
    capsys.readouterr()
    assert main(["join", "mesh", "-o", "back.png"]) == 1
    err = capsys.readouterr().err
    assert "without packet 0, the first, nothing can be shown" in err and err.count("\n") == 1
    assert not Path("back.png").exists()


def test_fit_fills_the_packets() -> None:
    ok(
        "packets",
        "photo.png",
        "-o",
        "mesh",
        "--channel",
        "meshcore",
        "--fit",
        "--count",
        "3",
        "--parity",
        "1",
    )
    sizes = [path.stat().st_size for path in sorted(Path("mesh").iterdir())]
    assert len(sizes) == 3 and 0.95 * 165 <= max(sizes) <= 165
    ok("packets", "photo.png", "-o", "two", "--payload", "100", "--fit", "--bpp", "0.03")
    assert all(90 <= path.stat().st_size <= 100 for path in Path("two").iterdir())


def test_text_goes_through_a_chat(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photo.sprd").write_bytes(file_of(700))
    capsys.readouterr()
    ok("packets", "photo.sprd", "--text", "base64url", "--channel", "sms", "--parity", "2")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 160
    chat = [f"[09:1{n}] Bob: {line}" for n, line in enumerate(lines) if n != 1] + [
        "[09:20] Bob: did it come?"
    ]
    Path("chat.txt").write_text("\n".join(chat))
    ok("join", "chat.txt", "-o", "back.sprd")
    assert Path("back.sprd").read_bytes() == Path("photo.sprd").read_bytes()
    assert (
        capsys.readouterr().err == f"sprdiff: warning: chat.txt: line {len(lines)} is no packet, or broken\n"
    )
    ok("packets", "photo.sprd", "--text", "base91", "--payload", "100", "-o", "lines.txt")
    assert max(map(len, Path("lines.txt").read_text().splitlines())) <= 100


def test_two_streams_go_into_a_folder_and_damage_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        Path(f"{name}.sprd").write_bytes(file_of(500, seed))
        ok("packets", f"{name}.sprd", "-o", "mesh", "--payload", "100", "--parity", "1")
    Path("mesh/notes.txt").write_text("not a packet")
    victim = min(Path("mesh").glob("one-*"))
    victim.write_bytes(victim.read_bytes()[:-1])
    capsys.readouterr()
    assert main(["join", "mesh", "-o", "both.sprd"]) == 1
    assert "packets of 2 streams" in capsys.readouterr().err and not Path("both.sprd").exists()
    ok("join", "mesh", "-o", "out", "--sprd")
    assert {path.read_bytes() for path in Path("out").iterdir()} == {file_of(500, 1), file_of(500, 2)}
    err = capsys.readouterr().err
    assert f"{victim} is no packet, or damaged" in err and "notes.txt is no packet" in err


def test_a_stream_that_contradicts_itself_keeps_no_other_back(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, payload, folder in ((1, 100, "a"), (1, 120, "b"), (2, 100, "c")):
        Path("x.sprd").write_bytes(file_of(500, seed))
        ok("packets", "x.sprd", "-o", folder, "--payload", str(payload))
    capsys.readouterr()
    assert main(["join", "a", "b", "c", "-o", "out", "--sprd"]) == 1
    assert "contradict each other" in capsys.readouterr().err
    (only,) = Path("out").iterdir()
    assert only.read_bytes() == file_of(500, 2)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--payload", "7"], 1, "has no room"),
        (["--payload", "8"], 1, "a payload of 9 would do"),
        (["--payload", "100", "--parity", "250"], 1, "a payload of 107 would do"),
        (["--payload", "100", "--parity", "255"], 2, "parity"),
        (["--payload", "100", "--count", "3"], 1, "more than --count 3"),
        (["--payload", "100", "--count", "9", "--parity", "2"], 2, "exclude each other"),
        (["--payload", "100", "--only", "77"], 1, "there is no packet 77"),
        (["--payload", "100", "--only", "x"], 2, "numbers such as 3,5"),
        (["--payload", "100", "--bpp", "0.02"], 2, "coded already"),
        (["--payload", "100", "--channel", "sms"], 2, "--payload N or --channel"),
        (["--channel", "smoke"], 2, "smoke is not one of"),
        (["--channel", "sms", "--text", "base91"], 2, "does not carry every character"),
        (["--channel", "iridium-sbd", "--text", "base91"], 2, "carries no text"),
        (["--payload", "100", "--text", "uuencode"], 2, "uuencode is not one of"),
        ([], 2, "--payload N or --channel"),
    ],
)
def test_wrong_options_are_one_clear_line(
    options: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.sprd").write_bytes(file_of(500))
    assert main(["packets", "x.sprd", "-o", "out", *options]) == status
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not Path("out").exists()


def test_what_is_no_packet_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").write_bytes(b"\xff\xfe\x00")
    assert main(["join", "x", "-o", "out.png"]) == 1
    assert "there is no packet among these files" in capsys.readouterr().err
    assert main(["join", "missing", "-o", "out.png"]) == 1
    assert "missing cannot be read" in capsys.readouterr().err
    assert main(["packets", "x", "--payload", "100"]) == 2
    assert "need -o DIR" in capsys.readouterr().err


def test_packets_come_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(file_of(300)))
    monkeypatch.setattr(sys, "stdin", stdin)
    ok("packets", "-", "--text", "base91", "--payload", "120")
    Path("lines").write_bytes(capsysbinary.readouterr().out)
    ok("join", "lines", "-o", "-.sprd")
    assert Path("-.sprd").read_bytes() == file_of(300)
