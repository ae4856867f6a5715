"""The documentation as pages: no warning when built, nothing fetched from elsewhere, links to source files
that work.

Marked services: a browser walks over the pages, at desk and phone width.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser_helpers import DESK, PHONE, Visit
from docs_rules import ROOT, load_script, pyproject

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOCS = ROOT / "docs"
LOADING = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object|input)\b[^>]*"
    r"\b(?:src|srcset|data)=[\"']?([^\"'\s>]+)"
)
LINKED = re.compile(r"<link\b[^>]*>")
STYLES = re.compile(r"@import\s+[\"']?([^\"';]+)|url\(\s*[\"']?([^\"')]+)")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stdout + done.stderr
    return folder


def fetched(page: str) -> Iterator[str]:
    """What a page loads when it is opened: scripts, pictures, frames, styles; not where its links lead."""
    yield from LOADING.findall(page)
    for tag in LINKED.findall(page):
        relation = re.search(r"\brel=[\"']?([\w\s-]+)", tag)
        address = re.search(r"\bhref=[\"']?([^\"'\s>]+)", tag)
        if address and relation and not set(relation[1].split()) & {"prev", "next", "canonical", "alternate"}:
            yield address[1]
    for inside in re.findall(r"<style\b[^>]*>(.*?)</style>|style=\"([^\"]*)\"", page, re.DOTALL):
        yield from styles("".join(inside))


def styles(text: str) -> Iterator[str]:
    yield from (a or b for a, b in STYLES.findall(text))


def is_elsewhere(address: str) -> bool:
    return re.match(r"(?!data:)[a-z][a-z0-9+.-]*:|//", address, re.IGNORECASE) is not None


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15 and list(fetched(pages[0].read_text("utf-8")))
    found = {f"{p.name}: {a}" for p in pages for a in fetched(p.read_text("utf-8")) if is_elsewhere(a)}
    found |= {
        f"{p.name}: {a}" for p in site.rglob("*.css") for a in styles(p.read_text("utf-8")) if is_elsewhere(a)
    }
    assert not found
    # The theme's script would fetch a program for diagrams, if there were one.
    assert not [page.name for page in pages if 'class="mermaid"' in page.read_text("utf-8")]


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css?family=Roboto">',
        '<img alt="x" src=http://example.com/x.png>',
        "<style>@import 'https://example.com/x.css'</style>",
        '<p style="background: url(https://example.com/x.png)">',
    ],
)
def test_what_is_fetched_from_elsewhere_is_seen(page: str) -> None:
    assert any(map(is_elsewhere, fetched(page)))


def test_links_and_own_files_are_not_elsewhere() -> None:
    page = '<a href="https://arxiv.org/abs/1">x</a><link rel=next href="https://x.org/2">'
    page += '<img src="a/b.svg"><img src="data:x,y">'
    assert not any(map(is_elsewhere, fetched(page)))


def test_what_a_page_loads_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        for address in set(fetched(page.read_text("utf-8"))):
            if page.name != "404.html" and not address.startswith(("data:", "#")):
                assert (page.parent / re.split("[?#]", address)[0]).exists(), f"{page.name}: {address}"


def test_the_included_page_is_there(site: Path) -> None:
    text = (site / "contributing.html").read_text("utf-8")
    assert "Habits" in text and "--8&lt;--" not in text and "--8<--" not in text


def test_every_page_of_the_folder_is_in_the_navigation() -> None:
    configuration = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS).as_posix()}\n" in configuration, page.name
    assert "omitted_files: warn" in configuration


@pytest.mark.parametrize(
    ("link", "unset", "there"),
    [
        ("../src/sprdiff/codec.py", None, "https://x.org/r/blob/main/src/sprdiff/codec.py"),
        ("../src/sprdiff/train", None, "https://x.org/r/tree/main/src/sprdiff/train"),
        ("../README.md#use-it", None, "https://x.org/r/blob/main/README.md"),
        ("models.md", "models.md", "models.md"),
        ("results/README.md#in-short", "results/README.md#in-short", "results/README.md#in-short"),
        ("nothing.md", "nothing.md", "nothing.md"),
        ("../../etc/passwd", "../../etc/passwd", "../../etc/passwd"),
        ("https://arxiv.org/x", "https://arxiv.org/x", "https://arxiv.org/x"),
        ("#sprdiff-encode", "#sprdiff-encode", "#sprdiff-encode"),
    ],
)
def test_links_of_a_page(link: str, unset: str | None, there: str) -> None:
    rewrite = load_script("mkdocs_links").rewrite
    assert rewrite(link, DOCS, DOCS, DOCS, None) == unset
    assert rewrite(link, DOCS, DOCS, DOCS, "https://x.org/r") == there


def test_links_of_an_included_file_start_where_it_lies() -> None:
    rewrite = load_script("mkdocs_links").rewrite
    assert rewrite("docs/bitstream.md#x", ROOT, DOCS, DOCS, None) == "bitstream.md#x"
    assert rewrite("docs/releasing.md", ROOT, DOCS, DOCS, None) == "releasing.md"
    assert rewrite("src/sprdiff/codec.py", ROOT, DOCS, DOCS, None) is None


def test_one_place_names_the_repository() -> None:
    hook = load_script("mkdocs_links")
    assert hook.repository_url('[project.urls]\nRepository = "https://x.org/r/"\n') == "https://x.org/r"
    assert hook.repository_url("[project]\nname = 'x'\n") is None
    assert "urls" not in pyproject()["project"] or "Repository" in pyproject()["project"]["urls"]
    assert "repo_url" not in (ROOT / "mkdocs.yml").read_text("utf-8")


@pytest.mark.services
def test_a_browser_is_content_with_every_page(site: Path, browser: Browser) -> None:
    with served(site) as address:
        for page in sorted(site.rglob("*.html")):
            if page.name == "404.html":
                continue
            visit = Visit(browser, f"{address}/{page.relative_to(site).as_posix()}", DESK)
            assert not visit.complaints, (page.name, visit.complaints)
            assert all(request.startswith(address) for request in visit.requests), visit.requests
            for width, height in (DESK, PHONE):
                visit.page.set_viewport_size({"width": width, "height": height})
                wide = visit.page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{page.name} is {wide} pixels wide"
            visit.page.close()


@pytest.mark.services
def test_the_search_finds_a_page(site: Path, browser: Browser) -> None:
    with served(site) as address:
        visit = Visit(browser, f"{address}/index.html", DESK)
        # Letter by letter: the page looks at the field when a key is released, and not when it is filled at
        # once.
        visit.page.get_by_role("textbox", name="Search").press_sequentially("background")
        found = visit.page.locator(".md-search-result__link").first
        found.wait_for()
        assert not visit.complaints and all(
            request.startswith((address, "blob:")) for request in visit.requests
        )
        visit.page.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder on a port of this machine: its address, for as long as the block lasts."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
