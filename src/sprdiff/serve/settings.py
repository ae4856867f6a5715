"""The limits of the service, so that no request can take everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .origins import Names


@dataclass(frozen=True)
class Settings:
    """The settings of `sprdiff serve`.

    Attributes:
        max_upload: the largest body of a request in bytes.
        max_pixels: the largest picture, width x height, for encoding and decoding; checked before pixels are
            decoded.
        concurrency: how many pictures are processed at the same time.
        queue: how many more requests may wait.
        timeout: how long waiting and processing may take together, and again sending the answer, in seconds.
        uploads: how many bodies are received at the same time; from one client a quarter of them.
        upload_timeout: how long a body may take to arrive, and as long it may wait for its turn, in seconds.
        header_timeout: how long the head of a request may take to arrive, in seconds.
        connections: how many connections are open at the same time; from one client a quarter of them.
        names: the names of the service; other hosts are refused.
        origins: further origins whose pages may use it from a browser, such as
            ``https://photos.example.org``.
        weights: the folder of the weights for the page at ``/view/``; None: the shipped one.
    """

    max_upload: int = 32_000_000
    max_pixels: int = 2**26
    concurrency: int = 2
    queue: int = 64
    timeout: float = 120.0
    uploads: int = 32
    upload_timeout: float = 30.0
    header_timeout: float = 15.0
    connections: int = 512
    names: Names = field(default_factory=Names)
    origins: tuple[str, ...] = ()
    weights: Path | None = None
