"""What pages say to those who choose, upgrade, cite or report is what the code and the other pages say."""

from __future__ import annotations

import re

import pytest
import yaml  # type: ignore[import-untyped]

from docs_rules import ROOT, pyproject
from sprdiff import BitstreamError, ModelMismatchError
from sprdiff.fileinfo import model_info
from sprdiff.format import container

GOLDEN = ROOT / "tests" / "data" / "bitstream" / "worked_example.sprd"


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_the_comparison_and_the_upgrade_are_about_the_shipped_weights() -> None:
    """With other weights their words have to be read again, which no command does."""
    tag = model_info().tag
    assert f"the weights that ship today, tag {tag}." in page("docs/comparison.md")
    assert f"the weights at hand, {tag} today" in page("docs/upgrading.md")


def test_the_upgrade_quotes_what_is_said_of_old_files() -> None:
    text, data = page("docs/upgrading.md"), bytearray(GOLDEN.read_bytes())
    header = container.parse_file(bytes(data)).header
    with pytest.raises(ModelMismatchError) as other:
        container.check_weights(header, bytes(32))
    data[3] = 1 << 4 | data[3] & 15
    with pytest.raises(BitstreamError) as old:
        container.parse_file(bytes(data))
    quotes = [re.escape(quote).replace("…", r"\w+") for quote in re.findall(r'is refused: "([^"]+)"', text)]
    quotes = [quote.replace(model_info().tag, r"\w+") for quote in quotes]
    assert len(quotes) == 2
    assert re.fullmatch(quotes[0], str(old.value))
    assert re.match(quotes[1], str(other.value))


def test_the_citation_is_complete_and_holds_no_version() -> None:
    """The version has one place; a citation without it cannot be wrong."""
    cited = yaml.safe_load(page("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert not {"version", "date-released"} & cited.keys()
    assert cited["license"] in pyproject()["project"]["license"].split(" AND ")
    assert set(cited["keywords"]) == set(pyproject()["project"]["keywords"])
    (paper,) = cited["references"]
    assert paper["url"] in page("README.md")
    assert ", ".join(author["family-names"] for author in paper["authors"]) in page("README.md")


def test_the_security_policy_leads_to_the_page() -> None:
    (anchor,) = re.findall(r"\]\(docs/security\.md#([\w-]+)\)", page("SECURITY.md"))
    headings = re.findall(r"^## (.+)$", page("docs/security.md"), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
