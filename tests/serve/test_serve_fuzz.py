"""Tests of the API under random parameters and random bytes: its answers are those that its description
allows."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.checks import CHECKS, load_all_checks

from serve_helpers import CODEC, Api, api, jpeg, saved
from sprdiff.serve.app import create_app
from sprdiff.serve.settings import LOOPBACK, Names, Settings

FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
SEEDS = (jpeg(64, 96), saved(Image.new("P", (40, 30)), "GIF"), saved(Image.new("RGBA", (9, 9)), "PNG"))
FILES = tuple(CODEC.encode(jpeg(64, 96), quality=quality) for quality in (0, 50))
LIMITS = Settings(max_upload=200_000, max_pixels=200_000, names=Names((*LOOPBACK, "testserver")))
APP = create_app(CODEC, LIMITS)
# Some bodies are good for one route and not for another.
schemathesis.openapi.media_type(
    "application/octet-stream", st.sampled_from(SEEDS + FILES) | st.binary(max_size=50)
)
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
load_all_checks()
# A description cannot say which bytes are a picture.
CHECKED = [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name != "positive_data_acceptance"]


@SCHEMA.parametrize()  # type: ignore[untyped-decorator]
@FUZZ
def test_answers_are_as_described(case: schemathesis.Case) -> None:
    answer = case.call()
    case.validate_response(answer, checks=CHECKED)


@pytest.fixture(scope="module")
def service() -> Iterator[Api]:
    with api(LIMITS) as made:
        yield made


def damaged(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Draw files with a few bytes changed, cut off or added."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 4))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return bytes(
            data[: draw(st.integers(1, len(data)))]
            if draw(st.booleans())
            else data + draw(st.binary(max_size=9))
        )

    return draw_one()


def check(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    if answer.status_code != 200:
        content = answer.json()
        assert set(content) <= {"error", "request", "smallest"}
        assert not any(leak in content["error"] for leak in ("Traceback", "/", "0x", "\n"))


@FUZZ
@given(body=damaged(SEEDS))
def test_damaged_pictures(service: Api, body: bytes) -> None:
    check(service.post("/encode?quality=0", body), 200, 413, 415, 422)


@FUZZ
@given(body=damaged(FILES))
def test_damaged_files(service: Api, body: bytes) -> None:
    answer = service.post("/decode?realism=0", body)
    check(answer, 200, 413, 415, 422)
    if answer.status_code == 200:
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.width * image.height <= LIMITS.max_pixels
