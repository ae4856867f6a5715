"""Tests of files through links that lose, double, damage and mix packets."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packet_helpers import HASH, file_of
from sprdiff.errors import BitstreamError, PacketError
from sprdiff.format.container import Header, pack_file
from sprdiff.packets import CODES, from_packets, payload_of_line, to_line, to_packets
from sprdiff.packets.packet import Packet, parse_packet


@settings(max_examples=80, deadline=None)
@given(st.integers(14, 1500), st.integers(20, 250), st.integers(0, 6), st.integers(0, 999))
def test_any_packets_but_as_many_as_there_is_parity_give_the_file(
    size: int, payload: int, parity: int, seed: int
) -> None:
    data = file_of(size, seed)
    made = to_packets(data, payload=payload, parity=parity)
    assert max(map(len, made)) <= payload
    rng = random.Random(seed)
    kept = rng.sample(made, len(made) - parity)
    (found,) = from_packets(kept * 2)
    assert found.whole and found.data == data and found.needed == 0 and len(found.missing) == parity


def test_every_loss_of_as_many_as_there_is_parity() -> None:
    data = file_of(600)
    made = to_packets(data, payload=120, parity=3)
    assert len(made) == 9
    for lost in combinations(range(9), 3):
        (found,) = from_packets(made[n] for n in range(9) if n not in lost)
        assert found.whole and found.data == data and found.missing == lost


def test_with_more_lost_the_longest_beginning_comes_out() -> None:
    data = file_of(600)
    made = to_packets(data, payload=120, parity=2)
    piece = len(made[0]) - 7
    (found,) = from_packets(made[n] for n in (0, 1, 3, 7))
    assert not found.whole and found.data == data[: 2 * piece]
    assert (found.missing, found.needed, found.packets) == ((2, 4, 5, 6), 2, (6, 2))
    (found,) = from_packets(made[1:4])
    assert found.data == b"" and not found.whole and found.missing[0] == 0
    (found,) = from_packets(made[n] for n in (0, 1, 3, 7, 4, 6))
    assert found.whole and found.data == data


def test_a_second_sending_completes_the_first() -> None:
    data = file_of(700)
    first, again = (to_packets(data, payload=100, parity=1) for _ in range(2))
    assert first == again
    (found,) = from_packets([*first[:3], *(again[n] for n in (3, 4, 5, 6, 7))])
    assert found.data == data


@pytest.mark.parametrize("end", [b"", b"\x07"])
def test_zeros_that_fill_up_a_recovered_piece_go_but_the_headers_stay(end: bytes) -> None:
    """With an empty stream the check ends the file, and may end in zeros."""
    ended_in_zeros = 0
    for width in range(1, 1500):
        data = pack_file(Header(width, 512, 100, 0, False, 1, HASH[:2]), end, HASH)
        if not (end or data.endswith(b"\0") or width < 20):
            continue
        ended_in_zeros += data.endswith(b"\0")
        made = to_packets(data, payload=12, parity=1)
        assert len({*map(len, made)}) <= 2
        data_packets = len(made) - 1
        (found,) = from_packets(packet for number, packet in enumerate(made) if number != data_packets - 1)
        assert found.whole and found.data == data
        if end and width > 40:
            break
    assert ended_in_zeros > 0 or end


def test_a_stream_that_ends_in_zeros_is_refused() -> None:
    data = pack_file(Header(768, 512, 100, 0, False, 1, HASH[:2]), b"\x05\0", HASH)
    with pytest.raises(PacketError, match="zero bytes"):
        to_packets(data, payload=100)


def test_two_files_damaged_and_foreign_packets_are_told_apart() -> None:
    one, two = file_of(500, 1), file_of(900, 2)
    packets = [*to_packets(one, payload=90, parity=2), *to_packets(two, payload=200, parity=1)]
    damaged = bytearray(packets[0])
    damaged[20] ^= 4
    mixed: list[bytes | str] = [
        *packets[1:],
        bytes(damaged),
        b"",
        b"\x1a\xbc",
        b"hello there, this is chat",
        "chat: hi",
    ]
    random.Random(0).shuffle(mixed)
    found = {stream.data: stream for stream in from_packets(mixed)}
    assert set(found) == {one, two} and all(stream.whole for stream in found.values())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 999), st.integers(0, 200), st.integers(0, 7))
def test_a_flipped_bit_is_always_found(seed: int, at: int, bit: int) -> None:
    packet = bytearray(to_packets(file_of(150, seed), payload=200)[0])
    packet[at % len(packet)] ^= 1 << bit
    assert parse_packet(bytes(packet)) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=40)), max_size=5))
def test_anything_else_is_no_packet(junk: list[bytes | str]) -> None:
    assert from_packets(junk) == []


def altered(packet: bytes, **fields: int | bytes) -> bytes:
    """Return the packet with other fields and a valid CRC."""
    parsed = parse_packet(packet)
    assert parsed is not None
    return Packet(**{**parsed.__dict__, **fields}).pack()


@pytest.mark.parametrize(
    "fields",
    [{"data": 7}, {"parity": 3}, {"piece": b"another piece"}, {"number": 4, "piece": b"x" * 500}],
    ids=["data", "parity", "piece", "length"],
)
def test_packets_of_one_id_that_contradict_each_other_are_an_error(fields: dict[str, int | bytes]) -> None:
    data, other = file_of(500, 1), file_of(500, 2)
    made = to_packets(data, payload=100, parity=2)
    name = parse_packet(made[0]).name  # type: ignore[union-attr]
    with pytest.raises(PacketError, match=f"^packets of stream {name} contradict each other$") as caught:
        from_packets([made[0], altered(made[1], **fields), *made[1:3], *to_packets(other, payload=100)])
    assert [stream.data for stream in caught.value.received] == [other]


@pytest.mark.parametrize("lost", [(), (0,), (0, 1)])
def test_files_of_one_id_are_never_mixed(lost: tuple[int, ...]) -> None:
    """Two files have the same id by chance, and their packets agree in number and length."""
    one = to_packets(file_of(500, 1), payload=100, parity=2)
    stream = parse_packet(one[0]).stream  # type: ignore[union-attr]
    two = [altered(packet, stream=stream) for packet in to_packets(file_of(500, 2), payload=100, parity=2)]
    with pytest.raises(PacketError, match="contradict"):
        from_packets([(one if number % 2 else two)[number] for number in range(8) if number not in lost])


def test_what_cannot_be_made_is_refused() -> None:
    data = file_of(3000)
    with pytest.raises(
        PacketError, match=r"take 600 packets of 12 bytes, more than 255: a payload of 19 would do"
    ):
        to_packets(data, payload=12)
    assert len(to_packets(data, payload=19)) == 250
    with pytest.raises(PacketError, match="a payload of 22 would do"):
        to_packets(data, payload=19, parity=50)
    assert len(to_packets(data, payload=22, parity=50)) == 250
    for parity in (-1, 255):
        with pytest.raises(PacketError, match="0 to 254 parity packets"):
            to_packets(data, payload=200, parity=parity)
    with pytest.raises(PacketError, match="has no room"):
        to_packets(data, payload=7)
    with pytest.raises(BitstreamError, match="not an sprd file"):
        to_packets(b"\x89PNG and so on", payload=200)


@pytest.mark.parametrize("code", CODES)
def test_lines_of_text_hold_packets_and_keep_to_their_length(code: str) -> None:
    for characters in (60, 133, 160, 200):
        payload = payload_of_line(characters, code)
        data = file_of(900, characters)
        lines = [to_line(packet, code) for packet in to_packets(data, payload=payload, parity=1)]
        assert max(map(len, lines)) <= characters
        assert all(line.isascii() and line.isprintable() and " " not in line for line in lines)
        (found,) = from_packets(f"12:05 Alice:  {line} \r\n" for line in lines)
        assert found.data == data
    with pytest.raises(PacketError, match="no room"):
        payload_of_line(8, code)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=8, max_size=120), st.sampled_from(CODES))
def test_text_never_takes_more_characters_than_promised(packet: bytes, code: str) -> None:
    length = len(to_line(packet, code))
    assert payload_of_line(length + 1, code) >= len(packet) - (2 if code == "base91" else 1)
    longest = next(n for n in range(9, 400) if payload_of_line(max(n, 11), code) >= len(packet))
    assert length <= max(longest, 11)


def test_a_broken_line_is_a_lost_packet() -> None:
    data = file_of(500)
    lines = [to_line(packet, "base91") for packet in to_packets(data, payload=100, parity=1)]
    (found,) = from_packets([*lines[:2], lines[2][:40], lines[2][40:], *lines[3:]])
    assert found.whole and found.data == data and found.missing == (2,)
