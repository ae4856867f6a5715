"""Tests of the built page's files: what a server gives out, and what is said where the page is not built."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import sprdiff.viewer.page
from serve_helpers import CODEC, Api
from sprdiff.cli import main
from sprdiff.errors import OutputError, ViewerError
from sprdiff.serve.settings import Settings
from sprdiff.viewer.bundle import Bundle, pack
from sprdiff.viewer.page import page_files, write_site

WEB = Path(__file__).parents[2] / "web"
BUILT = WEB.parent / "src" / "sprdiff" / "viewer" / "page" / "build.json"
FILES = {"index.html": b"<!doctype html>", "page.js": b"1", "onnxruntime.wasm.zlib": b"\x00"}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder in the place of the package, with a page that was built."""
    folder = tmp_path / "package" / "page"
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    (folder / "build.json").write_text(json.dumps({"source": "", "files": hashes}))
    monkeypatch.setattr(sprdiff.viewer.page, "files", lambda _: tmp_path / "package")
    return folder


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return pack({}, {})


@pytest.mark.skipif(not BUILT.exists(), reason="the page is not built: make web, which needs Node")
def test_the_built_page_is_that_of_these_sources() -> None:
    base = "../src/sprdiff/serve/page/base.css"
    names = [base, "build.mjs", "index.html", "page.css", "package.json", "package-lock.json"]
    paths = sorted([*names, *(path.relative_to(WEB).as_posix() for path in (WEB / "src").rglob("*.ts"))])
    lines = [f"{path} {hashlib.sha256((WEB / path).read_bytes()).hexdigest()}\n" for path in paths]
    source = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert json.loads(BUILT.read_text())["source"] == source, "the page is out of date: make web"
    assert {"index.html", "page.js", "worker.js", "sw.js", "onnxruntime.wasm.zlib"} <= page_files().keys()


def test_the_files_of_a_page(page: Path) -> None:
    assert page_files() == FILES


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "build.json").unlink(), "run make web"),
        (lambda folder: (folder / "page.js").unlink(), "lacks page.js"),
        (lambda folder: (folder / "page.js").write_bytes(b"2"), "page.js is not what was built"),
    ],
)
def test_a_page_that_is_not_whole(page: Path, harm: object, said: str) -> None:
    assert callable(harm)
    harm(page)
    with pytest.raises(ViewerError, match=said):
        page_files()


def test_a_site_for_any_server(page: Path, bundle: Bundle, tmp_path: Path) -> None:
    site = tmp_path / "site"
    names = write_site(site, bundle)
    assert {path.name for path in site.iterdir()} == {*FILES, "weights.json", bundle.name} == set(names)
    assert json.loads((site / "weights.json").read_bytes())["file"] == bundle.name
    with pytest.raises(OutputError, match="exists"):
        write_site(site, bundle)
    write_site(site, bundle, force=True)


def test_the_command_for_a_site(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["viewer", str(tmp_path / "site")]) == 0
    assert f"{len(FILES) + 2} files" in capsys.readouterr().out
    (page / "build.json").unlink()
    assert main(["viewer", str(tmp_path / "other")]) == 1
    assert "make web" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_the_service_gives_out_the_page_and_its_weights(page: Path) -> None:
    service = Api(Settings(), CODEC)
    try:
        home = service.get("/view/")
        assert home.content == FILES["index.html"] and home.headers["content-type"].startswith("text/html")
        assert "'wasm-unsafe-eval'" in home.headers["content-security-policy"]
        assert home.headers["cross-origin-embedder-policy"] == "require-corp"
        assert home.headers["cross-origin-opener-policy"] == "same-origin"
        assert home.headers["x-content-type-options"] == "nosniff"
        assert service.get("/view/", headers={"If-None-Match": home.headers["etag"]}).status_code == 304
        assert service.get("/view").headers["location"] == "view/"
        assert service.get("/view/page.js").headers["content-type"].startswith("text/javascript")
        index = service.get("/view/weights.json").json()
        weights = service.get(f"/view/{index['file']}")
        assert hashlib.sha256(weights.content).hexdigest() == index["sha256"]
        assert "immutable" in weights.headers["cache-control"]
        assert service.get("/view/weights-0123456789abcdef.bin").status_code == 404
        assert service.get("/view/build.json").status_code == 404
        assert "wasm" not in service.get("/").headers["content-security-policy"]
    finally:
        service.close()


def test_without_a_page_the_service_says_how_to_build_it(page: Path) -> None:
    (page / "build.json").unlink()
    service = Api(Settings(), CODEC)
    try:
        for path in ("/view", "/view/"):
            answer = service.get(path)
            assert answer.status_code == 404 and "make web" in answer.text
            assert answer.headers["content-type"].startswith("text/html")
    finally:
        service.close()


def test_weights_that_the_page_cannot_have(page: Path, tmp_path: Path) -> None:
    service = Api(Settings(weights=tmp_path), CODEC)
    try:
        answer = service.get("/view/weights.json")
        assert answer.status_code == 503 and "error" in answer.json()
    finally:
        service.close()
