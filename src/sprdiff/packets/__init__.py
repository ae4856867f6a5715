"""Files become packets for links that lose some, and packets become files: numbers, checks, erasure
coding, text."""

from __future__ import annotations

from .channels import CHANNELS, Channel
from .join import Received, from_packets
from .split import data_packets, stream_id, to_packets
from .text import CODES, from_line, payload_of_line, to_line

__all__ = [
    "CHANNELS",
    "CODES",
    "Channel",
    "Received",
    "data_packets",
    "from_line",
    "from_packets",
    "payload_of_line",
    "stream_id",
    "to_line",
    "to_packets",
]
