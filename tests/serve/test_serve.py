"""Tests of the HTTP API: what it answers to proper requests, and in one sentence to all others."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sprdiff
from conftest import photo
from serve_helpers import CODEC, Api, api, jpeg, refused, saved
from source_helpers import COMPOSITE, source_type
from sprdiff.codec import Codec
from sprdiff.errors import WeightsError
from sprdiff.fileinfo import model_info
from sprdiff.imageio.open import open_rgb
from sprdiff.serve.settings import Settings


@pytest.fixture(scope="module")
def service() -> Iterator[Api]:
    with api() as made:
        yield made


@pytest.fixture(scope="module")
def sprd() -> bytes:
    return CODEC.encode(jpeg(), quality=20)


def test_encode(service: Api) -> None:
    answer = service.post("/encode?bpp=0.02", jpeg())
    assert answer.status_code == 200 and answer.content == CODEC.encode(jpeg(), bpp=0.02)
    about = sprdiff.info(answer.content)
    headers = answer.headers
    assert headers["content-type"] == "image/x-sprdiff"
    assert (int(headers["sprdiff-bytes"]), int(headers["sprdiff-width"])) == (len(answer.content), 256)
    assert float(headers["sprdiff-bpp"]) == pytest.approx(about.bpp, abs=1e-5)
    assert (int(headers["sprdiff-level"]), float(headers["sprdiff-scale"])) == (about.level, about.scale)
    assert headers["sprdiff-model"] == about.model and float(headers["sprdiff-seconds"]) > 0
    assert "sprdiff-dropped" not in headers


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {}),
        ("quality=40", {"quality": 40}),
        ("max_bytes=90", {"max_bytes": 90}),
        ("max_bytes=90&scale=2", {"max_bytes": 90, "scale": "2"}),
    ],
)
def test_encode_takes_the_codecs_options(service: Api, query: str, options: dict[str, Any]) -> None:
    assert service.post(f"/encode?{query}", jpeg()).content == CODEC.encode(jpeg(), **options)


def test_transparency_goes_on_the_background_and_is_named(service: Api) -> None:
    clear = saved(Image.new("RGBA", (64, 64), (0, 0, 0, 0)), "PNG")
    answer = service.post("/encode?quality=0&background=%23336699", clear)
    assert answer.headers["sprdiff-dropped"] == "alpha"
    assert answer.content == CODEC.encode(clear, quality=0, background="#336699")


def test_a_target_that_cannot_be(service: Api) -> None:
    content = refused(service.post("/encode?max_bytes=3", jpeg()), 422, "3 bytes are too few", "smallest")
    answer = service.post("/encode?max_bytes=3&or_smallest=true", jpeg())
    assert answer.status_code == 200 and len(answer.content) == content["smallest"]


@pytest.mark.parametrize("realism", [0, 0.35, 1])
def test_decode(service: Api, sprd: bytes, realism: float) -> None:
    answer = service.post(f"/decode?realism={realism}", sprd)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert float(answer.headers["sprdiff-realism"]) == realism
    with Image.open(io.BytesIO(answer.content)) as image:
        assert np.array_equal(np.asarray(image), np.asarray(CODEC.decode(sprd, realism=realism)))
        text = json.loads(image.info["sprdiff"])
    assert text == {
        "version": sprdiff.__version__,
        "model": "tiny-" + sprdiff.info(sprd).tag,
        "decoder": model_info().decoder_hash,
        "realism": realism,
        "bytes": len(sprd),
    }


def test_a_blend_of_the_two_ends_is_not_the_picture_between(sprd: bytes) -> None:
    # Why the page asks for every place of the dial: rounding and clipping come after blending.
    small = CODEC.encode(photo(320, 480), max_bytes=60)
    ends = [np.asarray(CODEC.decode(small, realism=r), np.float64) for r in (0, 1)]
    between = np.asarray(CODEC.decode(small, realism=0.5), np.float64)
    assert not np.array_equal(np.floor((ends[0] + ends[1]) / 2 + 0.5), between)


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("jpeg", "JPEG")])
def test_formats_of_decoded_pictures(service: Api, sprd: bytes, name: str, kind: str) -> None:
    answer = service.post(f"/decode?format={name}&steps=2&seed=7", sprd)
    assert answer.headers["content-type"] == f"image/{name}"
    assert source_type(answer.content) == COMPOSITE
    assert source_type(service.post(f"/decode?format={name}&realism=0", sprd).content) is None
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == (kind, (256, 192))
        if name != "jpeg":
            assert np.array_equal(np.asarray(image), np.asarray(CODEC.decode(sprd, steps=2, seed=7)))


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif"])
def test_compare(service: Api, codec: str) -> None:
    answer = service.post(f"/compare?codec={codec}&max_bytes=700", jpeg())
    assert answer.status_code == 200
    assert 0 < int(answer.headers["sprdiff-bytes"]) <= 700 and float(answer.headers["sprdiff-scale"]) >= 1
    assert source_type(answer.content) is None  # nothing of it is invented
    decoded = open_rgb(answer.content).pixels.astype(float)
    assert decoded.shape == (192, 256, 3)
    assert np.abs(decoded - open_rgb(jpeg()).pixels).mean() < 12


def test_a_baseline_that_cannot_be_that_small(service: Api) -> None:
    content = refused(service.post("/compare?codec=jpeg&max_bytes=9", jpeg()), 422, "the smallest JPEG")
    answer = service.post("/compare?codec=jpeg&max_bytes=9&or_smallest=true", jpeg())
    assert answer.status_code == 200 and int(answer.headers["sprdiff-bytes"]) == content["smallest"] > 9
    assert open_rgb(answer.content).pixels.shape == (192, 256, 3)


def test_a_baseline_is_looked_for_once(service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    first = service.post("/compare?codec=webp&max_bytes=650", jpeg())
    monkeypatch.setattr("sprdiff.serve.jobs.best_baseline", None)
    again = service.post("/compare?codec=webp&max_bytes=650", jpeg())
    assert again.content == first.content and again.headers["sprdiff-bytes"] == first.headers["sprdiff-bytes"]


def test_baselines_code_large_pictures_smaller(service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprdiff.serve.baselines.MAX_PIXELS", 40_000)
    answer = service.post("/compare?codec=webp&max_bytes=640", jpeg())
    height, width = open_rgb(answer.content).pixels.shape[:2]
    assert (height, width) == (173, 231)
    assert float(answer.headers["sprdiff-scale"]) >= 1.1


def test_too_small_for_a_comparison(service: Api) -> None:
    refused(service.post("/compare?codec=jpeg&max_bytes=500", jpeg(64, 96)), 422, "161")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/encode?bpp=-1", ["bpp", "greater than 0"]),
        ("/encode?bpp=nan", ["bpp"]),
        ("/encode?bpp=1&quality=1", ["exclude each other"]),
        ("/encode?quality=101", ["quality", "100"]),
        ("/encode?max_bytes=1e3", ["max_bytes", "integer"]),
        ("/encode?max-bytes=300", ["no parameter 'max-bytes'"]),
        ("/encode?scale=5", ["scale"]),
        ("/encode?background=nothing", ["not an opaque colour"]),
        ("/decode?realism=1.5", ["realism"]),
        ("/decode?steps=17", ["steps", "16"]),
        ("/decode?seed=-1", ["seed"]),
        ("/decode?format=gif", ["format"]),
        ("/compare?max_bytes=9", ["codec"]),
        ("/compare?codec=bmp&max_bytes=9", ["codec"]),
    ],
)
def test_wrong_parameters(service: Api, path: str, words: list[str]) -> None:
    refused(service.post(path, jpeg()), 422, *words)


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/encode", b"", 422, "empty"),
        ("/encode", b"a", 415, "not an image"),
        ("/encode", b"no picture at all, by its bytes", 415, "not an image"),
        ("/encode", b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "PostScript"),
        ("/encode", jpeg()[:900], 422, "damaged"),
        ("/encode", jpeg()[:20], 415, "not an image"),
        ("/decode", jpeg(), 415, "not an sprd file"),
        ("/decode", b"SPR", 422, "truncated"),
        ("/decode", b"SPR\x10\x01\x00\x00\x00\x01\x01\x00\x00", 422, "no longer reads"),
        ("/compare?codec=jpeg&max_bytes=99", b"SPR", 415, "an .sprd file already"),
    ],
)
def test_wrong_bodies(service: Api, path: str, body: bytes, status: int, word: str) -> None:
    refused(service.post(path, body), status, word)


def test_damaged_files_and_files_of_other_weights(service: Api, sprd: bytes) -> None:
    refused(service.post("/decode", sprd[:-1] + bytes([sprd[-1] ^ 1])), 422, "damaged")
    refused(service.post("/decode", sprd[:-4]), 422, "damaged or truncated")
    other = sprd[:5] + bytes([sprd[5] ^ 1]) + sprd[6:]
    refused(service.post("/decode", other), 422, "was made with the weights")


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/json", "text/html", "video/mp4"]
)
def test_bodies_that_are_said_to_be_something_else(service: Api, kind: str) -> None:
    refused(service.post("/encode", jpeg(), headers={"Content-Type": kind}), 415, "content type")


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "image/gif", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_bytes_decide_and_not_the_content_type(service: Api, kind: str) -> None:
    assert service.post("/encode?quality=0", jpeg(), headers={"Content-Type": kind}).status_code == 200
    refused(service.post("/encode?quality=0", b"MZ" + bytes(100), headers={"Content-Type": kind}), 415)


def test_a_content_encoding_is_refused(service: Api) -> None:
    refused(service.post("/encode", jpeg(), headers={"Content-Encoding": "gzip"}), 415, "content encoding")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/encode", 405), ("POST", "/", 405), ("PUT", "/decode", 405),
     ("GET", "/../../etc/passwd", 404), ("GET", "/%2e%2e/page.css", 404), ("GET", "/page.css/", 404),
     ("GET", "/docs", 404), ("GET", "/serve/app.py", 404)],
)  # fmt: skip
def test_no_such_route(service: Api, method: str, path: str, status: int) -> None:
    answer = service.ask(method, path)
    refused(answer, status)
    assert status != 405 or answer.headers["allow"]


def test_health(service: Api) -> None:
    answer = service.get("/healthz")
    settings = Settings()
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "version": sprdiff.__version__,
        "model": f"tiny-{sprdiff.model_info().tag}",
        "limits": {"max_upload": settings.max_upload, "max_pixels": settings.max_pixels},
    }


def test_without_weights(tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path_factory.mktemp("no-weights-here")
    with api(codec=Codec(folder)) as broken:
        refused(broken.get("/healthz"), 503, "networks")
        refused(broken.post("/encode", jpeg()), 503, "networks")
    assert WeightsError.__name__ in caplog.text and folder.name in caplog.text  # told to whoever runs it


def test_a_bug_is_answered_with_an_id_and_logged_under_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("/secret/path")

    codec = Codec()
    monkeypatch.setattr(codec, "encode_with", fail)
    with api(codec=codec) as broken, caplog.at_level(logging.ERROR):
        answer = broken.post("/encode", jpeg())
    content = refused(answer, 500, "its log")
    assert "secret" not in answer.text
    assert content["request"] in caplog.text and "ZeroDivisionError" in caplog.text


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    codec = Codec()
    monkeypatch.setattr(codec, "encode_with", fail)
    with api(codec=codec) as broken:
        answer = broken.post("/encode", jpeg())
    refused(answer, 503, "not enough memory")
    assert int(answer.headers["retry-after"]) > 0


def test_every_answer_is_guarded(service: Api, sprd: bytes) -> None:
    answers = [
        service.get("/"),
        service.get("/nothing"),
        service.post("/decode", sprd),
        service.get("/metrics"),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';") and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers
    assert len({answer.headers["request-id"] for answer in answers}) == len(answers)
    assert answers[2].headers["cache-control"] == "no-store"


def test_the_page_fetches_nothing_from_elsewhere(service: Api) -> None:
    answer = service.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    names = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert {"page.css", "page.js", "icon.svg", "openapi.json", "view/"} == set(names)
    scripts = "".join(service.get(f"/{name}").text for name in ("page.js", "api.js", "viewer.js"))
    for name in re.findall(r'from "\./([\w.]+)"', scripts):
        assert service.get(f"/{name}").headers["content-type"] == "text/javascript; charset=utf-8"
    everything = answer.text + scripts + service.get("/page.css").text
    assert not re.search(
        r"https?://|url\(|@import|innerHTML|\bon\w+=|style=", everything.replace("http://www.w3.org", "")
    )


def test_the_page_is_cached_by_its_tag(service: Api) -> None:
    first = service.get("/page.css")
    again = service.get("/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert service.ask("HEAD", "/").status_code == 200


def test_metrics() -> None:
    with api() as counted:
        sent = counted.post("/encode?quality=0", jpeg()).content
        counted.post("/encode", b"?")
        counted.get("/who/knows")
        lines = counted.get("/metrics").text.splitlines()
    assert 'sprdiff_requests_total{route="/encode",status="200"} 1.0' in lines
    assert 'sprdiff_requests_total{route="/encode",status="415"} 1.0' in lines
    assert 'sprdiff_requests_total{route="other",status="404"} 1.0' in lines
    assert f'sprdiff_received_bytes_total{{route="/encode"}} {len(jpeg()) + 1:.1f}' in lines
    assert 'sprdiff_pixels_total{route="/encode"} 49152.0' in lines
    assert 'sprdiff_job_seconds_count{route="/encode"} 1.0' in lines
    assert 'sprdiff_waiting{pool="coding"} 0.0' in lines and 'sprdiff_busy{pool="coding"} 0.0' in lines
    (total,) = [line for line in lines if line.startswith('sprdiff_sent_bytes_total{route="/encode"}')]
    assert float(total.split()[-1]) > len(sent)
    with api() as fresh:  # a registry of its own
        assert "route=" not in fresh.get("/metrics").text


def test_openapi_describes_bodies_and_errors(service: Api) -> None:
    schema = service.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/encode", "/decode", "/compare", "/healthz", "/metrics"}
    for path in ("/encode", "/decode", "/compare"):
        route = schema["paths"][path]["post"]
        assert (
            route["requestBody"]["required"] and "application/octet-stream" in route["requestBody"]["content"]
        )
        assert set(route["responses"]) == {
            "200", "400", "403", "408", "413", "415", "421", "422", "429", "500", "503",
        }  # fmt: skip
        for status, answer in route["responses"].items():
            if status != "200":
                model = answer["content"]["application/json"]["schema"]["$ref"]
                assert model == "#/components/schemas/Problem"
