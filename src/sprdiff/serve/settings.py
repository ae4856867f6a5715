"""The limits of the service, so that no request can take everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..common.fields import option

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Names:
    """The names of a service.

    Attributes:
        hosts: names and addresses in lower case.
        any_address: whether every IP address is accepted, because the service can be reached from outside; an
            address cannot be rebound.
    """

    hosts: tuple[str, ...] = LOOPBACK
    any_address: bool = False


@dataclass(frozen=True)
class Settings:
    """The settings of `sprdiff serve`.

    The timeout counts for waiting and working together, and again for sending the answer. One client may have
    a quarter of the uploads and of the connections.

    Attributes:
        max_pixels: the largest picture, width x height, for encoding and decoding; checked before pixels are
            decoded.
        upload_timeout: how long a body may take to arrive, and as long it may wait for its turn, in seconds.
        header_timeout: how long the head of a request may take to arrive, in seconds.
        connections: how many connections are open at the same time.
        names: the names of the service; other hosts are refused.
    """

    max_upload: int = option("The largest body of a request in bytes.", 32_000_000, low=1)
    max_pixels: int = option("Refuse larger pictures.", 2**26, low=1)
    concurrency: int = option("How many pictures are processed at once.", 2, low=1, high=256)
    queue: int = option("How many more requests may wait.", 64, low=0, high=10_000)
    timeout: float = option("Seconds for a request.", 120.0, low=0.1, high=86_400)
    uploads: int = option("How many bodies are received at once.", 32, low=1, high=10_000)
    upload_timeout: float = option("Seconds for the upload of a body.", 30.0, low=0.1, high=86_400)
    header_timeout: float = 15.0
    connections: int = 512
    names: Names = field(default_factory=Names)
    origins: Sequence[str] = option(
        "An origin whose pages may use the service, too; may repeat.",
        (),
        flag="--allow-origin",
        metavar="ORIGIN",
    )
    weights: Path | None = option("Use other weights.", None, metavar="DIR")
