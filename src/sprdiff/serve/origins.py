"""Which web pages may ask: the service's own, and those of origins that are allowed by name.

A browser lets every page send requests to every address, even to a loopback address, but it says where the
page is from:

- **Host** is the name in the address bar. If a stranger's name pointed here (DNS rebinding), the stranger's
  page would count as ours. Therefore only names that this service really has are answered; others get 421.
- **Origin** and **Sec-Fetch-Site**, which pages cannot change, reveal requests of other pages. Such a page
  could not read the answer, but its uploads would cost work. Therefore all but GET, HEAD and OPTIONS get 403.

Other programs send neither Origin nor Sec-Fetch-Site and are not affected.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers

from .problems import Refusal
from .settings import Names

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(?::[0-9]*)?")
_EXPOSED = (
    "Bytes",
    "Bpp",
    "Width",
    "Height",
    "Level",
    "Quality",
    "Scale",
    "Model",
    "Realism",
    "Seconds",
    "Codec",
    "Dropped",
)
_LOOKS = ("GET", "HEAD", "OPTIONS")


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers send it: a scheme, a host, perhaps a port, and nothing else."""
    return _ORIGIN.fullmatch(text) is not None


class Origins:
    """Judges requests by their headers.

    Args:
        allowed: further origins, such as ``https://photos.example.org``. Their hosts are also names of the
            service, which may be behind a proxy of that name.
    """

    def __init__(self, names: Names, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(allowed)
        hosts = (_ORIGIN.fullmatch(origin) for origin in self._allowed)
        self._hosts = frozenset(names.hosts) | {match[1].strip("[]") for match in hosts if match}
        self._any_address = names.any_address

    def check(self, method: str, headers: Headers) -> None:
        """Refuse requests of other pages.

        Raises:
            Refusal: 421: Host is no name of this service; 403: a page of another origin asks.
        """
        hosts = headers.getlist("host")
        if not all(self._is_ours(host) for host in hosts):  # a program that speaks HTTP 1.0 sends none
            raise Refusal(421, "the host of the request is not a name of this service")
        if method not in _LOOKS and not self._is_own_page(headers, hosts):
            raise Refusal(
                403, "a page of another site may not send this; sprdiff serve --allow-origin lets it"
            )

    def shared(self, headers: Headers) -> dict[str, str]:
        """Return the headers that let the page of an allowed origin read the answer."""
        origin = headers.get("origin")
        if origin is None or origin not in self._allowed:
            return {"Vary": "Origin"} if self._allowed else {}
        exposed = ", ".join(("Request-Id", "Retry-After", *(f"Sprdiff-{name}" for name in _EXPOSED)))
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": exposed,
        }

    def preflight(self, method: str, headers: Headers) -> dict[str, str] | None:
        """Return the answer to a browser's preflight request; None if the request is none."""
        asked = method == "OPTIONS" and "access-control-request-method" in headers
        if not asked or headers.get("origin") not in self._allowed:
            return None
        return {
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "Content-Type",
            "Access-Control-Max-Age": "600",
        }

    def _is_ours(self, host: str) -> bool:
        match = _AUTHORITY.fullmatch(host.lower())
        if match is None:
            return False
        name = match[1].strip("[]").removesuffix(".")
        return name in self._hosts or (self._any_address and _is_address(name))

    def _is_own_page(self, headers: Headers, hosts: list[str]) -> bool:
        site = headers.get("sec-fetch-site", "none")
        origins = headers.getlist("origin")
        if not origins:
            return site in ("same-origin", "none")
        if len(origins) > 1:
            return False
        # Behind a proxy, Host may be the proxy's name for us: then only the browser knows that the page is
        # ours.
        return origins[0] in self._allowed or origins[0].partition("://")[2] in hosts or site == "same-origin"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
