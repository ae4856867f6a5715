"""Well-known channels: how many bytes and characters they leave to an application.

``docs/packets.md`` names the source of each figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from .text import CODES


@dataclass(frozen=True)
class Channel:
    """One kind of message.

    Attributes:
        payload: the largest binary message in bytes.
        characters: the longest text message in characters; None if there is none.
        codes: codes of text all of whose characters count as one there.
    """

    payload: int
    characters: int | None = None
    codes: tuple[str, ...] = CODES


CHANNELS: dict[str, Channel] = {
    "meshtastic": Channel(233, 200),
    "meshcore": Channel(165, 160),
    "sms": Channel(133, 160, ("base64url",)),
    "iridium-sbd": Channel(340),
    "iridium-sbd-mt": Channel(270),
    **{f"lorawan-eu-dr{rate}": Channel(51) for rate in (0, 1, 2)},
    "lorawan-eu-dr3": Channel(115),
    **{f"lorawan-eu-dr{rate}": Channel(222) for rate in (4, 5)},
}
