"""What `sprdiff join` finds in folders: chats in any encoding, huge files, too few packets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packet_helpers import file_of
from sprdiff.cli import main
from sprdiff.codec import Codec
from sprdiff.packets import to_line, to_packets

DATA = file_of(600)
LINES = [f"[12:0{n}] Zoë: {to_line(p, 'base91')}" for n, p in enumerate(to_packets(DATA, payload=120))]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_packets(folder: str, numbers: list[int], parity: int = 0) -> str:
    Path(folder).mkdir(exist_ok=True)
    made = to_packets(DATA, payload=120, parity=parity)
    for number in numbers:
        Path(folder, f"{number}.pkt").write_bytes(made[number])
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "cp1252"])
def test_a_chat_is_read_in_whatever_encoding_it_was_saved(encoding: str) -> None:
    Path("chat.txt").write_text("\r\n".join(LINES), encoding)
    assert main(["join", "chat.txt", "-o", "back.sprd"]) == 0
    assert Path("back.sprd").read_bytes() == DATA


def test_a_huge_file_is_passed_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprdiff.cli.packets._MOST_READ", 2**20)
    write_packets("mesh", [0, 1, 2, 3, 4, 5])
    with open("mesh/disk.img", "wb") as stream:
        stream.truncate(2**20 + 1)
    assert main(["join", "mesh", "-o", "back.sprd"]) == 0
    assert capsys.readouterr().err == (
        "sprdiff: warning: mesh/disk.img is larger than 1 MiB, it is not searched for packets\n"
    )
    assert Path("back.sprd").read_bytes() == DATA
    assert main(["join", "mesh/disk.img", "-o", "other.sprd"]) == 1
    assert "larger than 1 MiB" in capsys.readouterr().err


def test_a_file_of_a_folder_that_cannot_be_read_keeps_no_packet_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_packets("mesh", [0, 1, 2, 3, 4, 5])
    Path("mesh/secret").write_bytes(b"")
    real = open

    def refusing(path: str, mode: str) -> object:
        if os.path.basename(path) == "secret":
            raise PermissionError(13, "Permission denied")
        return real(path, mode)

    monkeypatch.setattr("sprdiff.common.files.open", refusing, raising=False)
    assert main(["join", "mesh", "-o", "back.sprd"]) == 0
    assert "mesh/secret cannot be read: permission denied" in capsys.readouterr().err


def test_without_the_first_packet_the_message_says_what_to_ask_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_packets("mesh", [1, 2, 4, 5, 6], parity=2)
    for output in ("back.png", "folder"):
        assert main(["join", "mesh", "-o", output]) == 1
        err = capsys.readouterr().err
        assert err.endswith(
            ": packets 0,3,7 are missing, any of them would complete it; "
            "without packet 0, the first, nothing can be shown\n"
        )
        assert err.count("\n") == 1 and not Path(output).exists()


@pytest.mark.parametrize("command", ["packets", "link", "qr"])
def test_a_damaged_file_is_not_sent_in_silence(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Codec(threads=1).encode(Path(__file__).parents[2] / "docs" / "demo.webp", max_bytes=300)
    options = {
        "packets": ["-o", "mesh", "--payload", "100"],
        "link": ["--viewer", "https://example.org/view/"],
        "qr": ["code.svg", "--raw"],
    }[command]
    for name, data, warning in (
        ("whole", whole, ""),
        (
            "cut",
            whole[:-9],
            "sprdiff: warning: cut.sprd is damaged or cut off: its check does not match its contents\n",
        ),
        ("other", DATA, ""),
    ):
        Path(f"{name}.sprd").write_bytes(data)
        assert main([command, f"{name}.sprd", *options, *(["-f"] if command != "link" else [])]) == 0
        assert capsys.readouterr().err == warning
