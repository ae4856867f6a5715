"""Packets as lines of text, one packet on each line, for channels that only carry text.

base64url (RFC 4648, without padding) takes 4 characters for 3 bytes: letters, digits, - and _. base91
(Joachim Henke's basE91) takes about 16 characters for 13 bytes and uses 91 of the 94 printable ASCII
characters.
"""

from __future__ import annotations

import base64
import binascii
import string

from ..errors import PacketError
from .packet import OVERHEAD, Packet, parse_packet

BASE91 = string.ascii_uppercase + string.ascii_lowercase + string.digits + '!#$%&()*+,./:;<=>?@[]^_`{|}~"'
_VALUES = {character: value for value, character in enumerate(BASE91)}
CODES = ("base64url", "base91")


def to_line(packet: bytes, code: str) -> str:
    """Return a packet as text, without a line end.

    Args:
        code: one of `CODES`.
    """
    if code == "base91":
        return _to_base91(packet)
    return base64.urlsafe_b64encode(packet).rstrip(b"=").decode("ascii")


def from_line(line: str) -> Packet | None:
    """Read the packet of a line, and ignore what a chat puts before it up to a space; return None if there
    is none."""
    word = line.split()[-1:]
    for text in word:
        for decode in (_from_base64, _from_base91):
            packet = parse_packet(decode(text))
            if packet is not None:
                return packet
    return None


def payload_of_line(characters: int, code: str) -> int:
    """Return the longest packet in bytes that always fits into a line of so many characters.

    Raises:
        PacketError: no packet fits.
    """
    payload = characters * 3 // 4
    if code == "base91":
        payload = max(n for n in range(characters + 1) if _base91_length(n) <= characters)
    if payload <= OVERHEAD:
        raise PacketError(f"a line of {characters} characters of {code} has no room for a packet")
    return payload


def _base91_length(size: int) -> int:
    """Return the most characters that `size` bytes take: two for 13 bits, one for a rest of at most 6
    bits."""
    pairs, rest = divmod(8 * size, 13)
    return 2 * pairs + (0 if rest == 0 else 1 if rest <= 6 else 2)


def _to_base91(data: bytes) -> str:
    out, queue, bits = [], 0, 0
    for byte in data:
        queue |= byte << bits
        bits += 8
        if bits > 13:
            # 13 bits, or 14 if their value is small enough for two characters
            taken = 13 if queue & 0x1FFF > 88 else 14
            value = queue & (1 << taken) - 1
            queue >>= taken
            bits -= taken
            out += [BASE91[value % 91], BASE91[value // 91]]
    if bits:
        out.append(BASE91[queue % 91])
        if bits > 7 or queue > 90:
            out.append(BASE91[queue // 91])
    return "".join(out)


def _from_base91(text: str) -> bytes:
    """Decode base91; return empty bytes if a character does not belong to it."""
    out, queue, bits = bytearray(), 0, 0
    values = [_VALUES.get(character, -1) for character in text]
    if -1 in values:
        return b""
    for low, high in zip(values[::2], values[1::2], strict=False):
        value = low + 91 * high
        queue |= value << bits
        bits += 13 if value & 0x1FFF > 88 else 14
        while bits > 7:
            out.append(queue & 0xFF)
            queue >>= 8
            bits -= 8
    if len(values) % 2:
        out.append((queue | values[-1] << bits) & 0xFF)
    return bytes(out)


def _from_base64(text: str) -> bytes:
    """Decode base64url; return empty bytes if the text is something else."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
