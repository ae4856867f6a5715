"""Tests of which web pages may ask: names of the service, pages of strangers, pages of allowed origins."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from serve_helpers import CODEC, Api, api, jpeg, refused
from sprdiff import cli
from sprdiff.serve.server import listen, names_of
from sprdiff.serve.settings import Names, Settings

FRIEND = "https://photos.example.org"


@pytest.fixture(scope="module")
def service() -> Iterator[Api]:
    with api() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Api]:
    with api(Settings(origins=(FRIEND, "http://[2001:db8::1]:8080"))) as made:
        yield made


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/openapi.json", "/nothing"])
@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:8000",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "192.0.2.1",
        "[2001:db8::1]",
        "a@localhost",
        "[::1",
        "",
        "localhost:8000:9",
    ],
)
def test_names_of_strangers_that_lead_here_are_refused(service: Api, path: str, host: str) -> None:
    """In DNS rebinding a stranger's name leads to this machine, and the browser takes the stranger's page for
    ours."""
    refused(
        service.get(path, headers={"Host": host, "Sec-Fetch-Site": "same-origin"}),
        421,
        "name of this service",
    )


def test_uploads_under_the_name_of_a_stranger_are_refused(service: Api) -> None:
    headers = {
        "Host": "attacker.example",
        "Origin": "http://attacker.example",
        "Sec-Fetch-Site": "same-origin",
    }
    refused(service.post("/encode?quality=0", jpeg(), headers=headers), 421)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
)
def test_own_names(service: Api, host: str) -> None:
    assert service.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://attacker.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://attacker.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost, http://attacker.example"},
        {"Origin": FRIEND},
    ],
)
@pytest.mark.parametrize(
    "path", ["/encode?quality=0", "/decode", "/compare?codec=jpeg&max_bytes=900", "/healthz"]
)
def test_what_pages_of_other_sites_send_is_refused(service: Api, path: str, headers: dict[str, str]) -> None:
    answer = service.post(path, jpeg(), headers=headers)
    refused(answer, 403, "another site")
    assert "access-control-allow-origin" not in answer.headers


def test_two_origins_are_none(service: Api) -> None:
    headers = [("Origin", "http://localhost"), ("Origin", "http://attacker.example")]
    refused(service.post("/encode?quality=0", jpeg(), headers=headers), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://localhost"},
        # A proxy has put its own name for the service into Host; the page came through the proxy too.
        {"Origin": "https://proxy.example", "Sec-Fetch-Site": "same-origin", "Host": "127.0.0.1:8000"},
    ],
)
def test_its_own_page_and_programs_may_send(service: Api, headers: dict[str, str]) -> None:
    answer = service.post("/encode?quality=0", jpeg(), headers=headers)
    assert answer.content == CODEC.encode(jpeg(), quality=0)


def test_links_from_other_sites_lead_to_the_page(service: Api) -> None:
    assert service.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_pages_of_allowed_origins_may_send_and_read(shared: Api) -> None:
    headers = {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}
    answer = shared.post("/encode?quality=0", jpeg(), headers=headers)
    assert answer.content == CODEC.encode(jpeg(), quality=0)
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {
        name for name in answer.headers if name.startswith("sprdiff-")
    } <= exposed and "request-id" in exposed
    for shown in (
        answer,
        shared.post("/decode", b"?", headers=headers),
        shared.get("/healthz", headers=headers),
    ):
        assert (shown.headers["access-control-allow-origin"], shown.headers["vary"]) == (FRIEND, "Origin")
    refused(shared.post("/encode", jpeg(), headers={"Origin": f"{FRIEND}:444"}), 403)
    refused(shared.post("/encode", jpeg(), headers={"Origin": "http://photos.example.org"}), 403)


def test_hosts_of_allowed_origins_are_names_of_the_service(shared: Api) -> None:
    for host in ("photos.example.org", "photos.example.org:443", "[2001:db8::1]:8080"):
        assert shared.get("/healthz", headers={"Host": host}).status_code == 200
    refused(shared.get("/healthz", headers={"Host": "example.org"}), 421)


def test_browsers_that_ask_beforehand(shared: Api, service: Api) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    friend, stranger = {"Origin": FRIEND, **asked}, {"Origin": "https://attacker.example", **asked}
    answer = shared.ask("OPTIONS", "/encode", headers=friend)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"].lower() == "content-type"
    for here, headers in ((service, friend), (shared, stranger)):
        foreign = here.ask("OPTIONS", "/encode", headers=headers)
        refused(foreign, 405)
        assert "access-control-allow-origin" not in foreign.headers


# What a service that was bound to an address is called


def answers_to(names: Names, *hosts: str) -> list[int]:
    with api(Settings(names=names)) as made:
        return [made.get("/healthz", headers={"Host": host}).status_code for host in hosts]


def test_names_of_a_loopback_address() -> None:
    with listen("127.0.0.2", 0) as bound:
        names = names_of("127.0.0.2", bound)
    assert answers_to(names, "127.0.0.2:80", "localhost", "192.0.2.7", socket.gethostname() + ".example") == [
        200, 200, 421, 421,
    ]  # fmt: skip


def test_names_of_a_service_for_others() -> None:
    with listen("0.0.0.0", 0) as bound:
        names = names_of("0.0.0.0", bound)
    hosts = (
        "192.0.2.7:8000",
        "[2001:db8::7]",
        "localhost",
        socket.gethostname(),
        "attacker.example",
        "192.0.2.7.example",
    )
    assert answers_to(names, *hosts) == [200, 200, 200, 200, 421, 421]


@pytest.mark.parametrize(
    "origin", ["*", "photos.example.org", "https://photos.example.org/", "ftp://a", "https://a b"]
)
def test_origins_that_are_none(capsys: pytest.CaptureFixture[str], origin: str) -> None:
    assert cli.main(["serve", "--port", "0", "--allow-origin", origin]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "--allow-origin" in err and err.count("\n") == 1
