"""Tests that docs/packets.md is the format: its example, its channels, and a receiver written from it
alone."""

from __future__ import annotations

import re
from pathlib import Path

from packet_helpers import file_of
from sprdiff.packets import CHANNELS, to_line, to_packets

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "packets.md").read_text("utf-8")
EXAMPLE = (ROOT / "tests" / "data" / "bitstream" / "worked_example.sprd").read_bytes()


def test_the_example_is_what_the_package_makes() -> None:
    block = re.search(r"```hex\n(.*?)```", PAGE, re.DOTALL)
    assert block
    lines = [line.partition("#")[0] for line in block[1].splitlines()]
    made = to_packets(EXAMPLE, payload=40, parity=1)
    assert [bytes.fromhex(a + b) for a, b in zip(lines[::2], lines[1::2], strict=True)] == made
    assert f"`{to_line(made[0], 'base64url')}`" in PAGE


def test_the_table_of_channels_is_that_of_the_package() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \| (\d+) \| (\d*) ?\|", PAGE, re.MULTILINE)
    listed = {}
    for names, payload, characters in rows:
        for name in re.findall(r"`([^`]+)`", names):
            full = f"lorawan-eu{name}" if name.startswith("-") else name
            listed[full] = (int(payload), int(characters) if characters else None)
    assert listed == {name: (channel.payload, channel.characters) for name, channel in CHANNELS.items()}


def times(a: int, b: int) -> int:
    """Return the product in GF(2^8) with 0x11D, computed bit by bit."""
    product = 0
    while b:
        product ^= a * (b & 1)
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def test_parity_is_the_remainder_that_the_document_says() -> None:
    """Every column is a multiple of the generator, because it is zero at all roots of the generator."""
    made = to_packets(file_of(300), payload=60, parity=4)
    size = len(made[0]) - 7
    for column in zip(*(packet[7:].ljust(size, b"\0") for packet in made), strict=True):
        root = 1
        for _ in range(4):
            value = 0
            for byte in column:
                value = times(value, root) ^ byte
            assert value == 0
            root = times(root, 2)
