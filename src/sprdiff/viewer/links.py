"""Links and QR codes that hold a whole photograph.

The fragment of a link, which browsers never send to a server, is the ``.sprd`` file in base64url (RFC 4648,
without padding). A code holds such a link, or the bytes of the file themselves.
"""

from __future__ import annotations

import base64
import io
from urllib.parse import urlsplit

from ..errors import ViewerError

MAX_LINK = 2**16
"""The largest number of characters of a link; browsers and chats cut longer ones somewhere."""
CODE_BYTES = 2953
"""Bytes in the largest QR code (version 40, error correction L, ISO/IEC 18004)."""
KINDS = ("png", "svg")
"""Formats that a code can be written in."""
_MODULE = 8
"""Pixels of a module along one side."""


def check_viewer(viewer: str) -> str:
    """Return the address of a page if a link can begin with it.

    Raises:
        ViewerError: it is no http or https address of a host, or has a fragment already.
    """
    try:
        parts = urlsplit(viewer)
    except ValueError:
        parts = urlsplit("")
    printable = viewer.isascii() and viewer.isprintable() and " " not in viewer
    if parts.scheme not in ("http", "https") or not parts.hostname or "#" in viewer or not printable:
        raise ViewerError(f"{viewer} is not the address of a page, such as https://example.org/view/")
    return viewer


def to_link(data: bytes, viewer: str) -> str:
    """Return the link that shows a photograph.

    Args:
        data: the ``.sprd`` file.
        viewer: address of a page as `page.write_site` or ``sprdiff serve`` offers it.

    Raises:
        ViewerError: the address is none, or the link would be longer than `MAX_LINK`.
    """
    link = f"{check_viewer(viewer)}#{base64.urlsafe_b64encode(data).rstrip(b'=').decode('ascii')}"
    if len(link) > MAX_LINK:
        raise ViewerError(f"a link of {len(data)} bytes has {len(link)} characters, more than {MAX_LINK}")
    return link


def most_bytes(viewer: str | None) -> int:
    """Return the size of the largest file that fits into a code: as a link to a page, or as it is (None)."""
    return CODE_BYTES if viewer is None else max(0, (CODE_BYTES - len(viewer) - 1) * 3 // 4)


def to_code(data: bytes, viewer: str | None, kind: str = "png") -> bytes:
    """Return one QR code as the bytes of an image: the smallest version, with the most error correction that
    fits.

    Args:
        data: the ``.sprd`` file.
        viewer: address of the page that the code opens; None: the code holds the file itself.
        kind: one of `KINDS`.

    Raises:
        ViewerError: it does not fit into a code (the message says how much would), or segno is not installed.
    """
    try:
        import segno
    except ImportError as error:
        raise ViewerError("codes need segno: pip install 'sprdiff[qr]'") from error
    content = data if viewer is None else to_link(data, viewer).encode("ascii")
    if len(content) > CODE_BYTES:
        raise ViewerError(
            f"{len(data)} bytes do not fit into one code: --max-bytes {most_bytes(viewer)} would"
        )
    code = segno.make_qr(content, mode="byte", error="L", boost_error=True)
    out = io.BytesIO()
    code.save(out, kind=kind, scale=_MODULE)
    return out.getvalue()
