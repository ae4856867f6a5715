"""A hook of mkdocs: links to files of the repository that are no pages work on the site as they do beside the
source.

A page may link to ``../src/sprdiff/codec.py``. On the site such a link leads to the repository's browser,
whose address is ``Repository`` under ``[project.urls]`` in pyproject.toml, the only place that names it.
While there is none, the text stays and the link goes. Links to what does not exist are left alone: mkdocs
warns of them.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown  # type: ignore[import-untyped]
from markdown.treeprocessors import Treeprocessor  # type: ignore[import-untyped]
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
INCLUDED = {"contributing.md": ROOT}
"""Pages that are a file of another folder, from where its links start."""


def repository_url(pyproject: str) -> str | None:
    """Return the address of the repository's browser that the text of a pyproject.toml names, or None."""
    urls = tomllib.loads(pyproject)["project"].get("urls", {})
    url = urls.get("Repository")
    return None if url is None else str(url).rstrip("/")


def rewrite(link: str, folder: Path, docs: Path, page_folder: Path, repository: str | None) -> str | None:
    """Return where a link of a page leads on the site; None: it leads nowhere, and only its text is kept.

    Args:
        link: as written.
        folder: where it starts.
        docs: folder of the pages.
        page_folder: where the page itself lies, which is `folder` unless the page is an included file.
        repository: see `repository_url`.
    """
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return link
    target = Path(os.path.normpath(folder / unquote(parts.path)))
    if not target.exists() or not target.is_relative_to(ROOT):
        return link
    if target.is_relative_to(docs):
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        return os.path.relpath(target, page_folder) + anchor if folder != page_folder else link
    if repository is None:
        return None
    kind = "tree" if target.is_dir() else "blob"
    return f"{repository}/{kind}/main/{target.relative_to(ROOT).as_posix()}"


class _Links(Treeprocessor):
    """A tree processor that goes over the links of one page."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        self.state = state

    def run(self, root: Element) -> None:
        for element in root.iter("a"):
            link = element.get("href")
            new = link if link is None else self.state.rewritten(link)
            if link is not None and new is None:
                element.tag = "span"
                del element.attrib["href"]
            elif new is not None:
                element.set("href", new)


class _State(Extension):
    """An extension of Markdown that holds what the links depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.page = ""
        self.docs = ROOT / "docs"
        self.repository: str | None = None

    def rewritten(self, link: str) -> str | None:
        page_folder = (self.docs / self.page).parent
        return rewrite(link, INCLUDED.get(self.page, page_folder), self.docs, page_folder, self.repository)

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Markdown's name)
        md.treeprocessors.register(
            _Links(self), "repository-links", 5
        )  # after inline (20), before mkdocs' own (0)


_state = _State()


def on_config(config: MkDocsConfig, **_: Any) -> MkDocsConfig:
    """Set the address of the repository and the extension; mkdocs calls this once."""
    _state.docs = Path(config.docs_dir).resolve()
    _state.repository = repository_url((ROOT / "pyproject.toml").read_text("utf-8"))
    if _state.repository is not None:
        config.repo_url = _state.repository
        config.repo_name = urlsplit(_state.repository).path.strip("/")
    config.markdown_extensions.append(_state)  # mkdocs passes instances on
    return config


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Remember the page; mkdocs calls this before each page."""
    _state.page = page.file.src_uri
    return markdown
