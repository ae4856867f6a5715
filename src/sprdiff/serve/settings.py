"""The limits of the service: what keeps a request from taking all there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .origins import Names


@dataclass(frozen=True)
class Settings:
    """What `sprdiff serve` can be told.

    Attributes:
        max_upload: bytes of a request's body.
        max_pixels: width x height of a picture, both ways; looked at before pixels are decoded.
        concurrency: pictures that are worked on at the same time.
        queue: requests that may wait beyond those.
        timeout: seconds for waiting and working together, and again for sending the answer.
        uploads: bodies that are received at the same time, of one client a quarter of them.
        upload_timeout: seconds within which a body has to arrive, and as many to wait for its turn before that.
        header_timeout: seconds within which the head of a request has to arrive.
        connections: open at the same time, of one client a quarter of them.
        names: what the service is called: other hosts are refused.
        origins: whose pages may use it from a browser, besides its own: ``https://photos.example.org``.
        weights: folder of the weights that the page at ``/view/`` gets; None: the shipped one.
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
