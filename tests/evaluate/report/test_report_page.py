"""Tests of the page and the Markdown: they are whole, self-contained, and harmless whatever a run holds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from report_helpers import CODECS, HEIGHT, METRICS, RATES, WIDTH, figures, keep_pictures, lost, make_run
from sprdiff.common.messages import printable
from sprdiff.errors import OutputError
from sprdiff.evaluate.report import plots, write
from sprdiff.evaluate.report.data import load
from sprdiff.evaluate.report.markdown import escape
from sprdiff.evaluate.report.pictures import scenes
from sprdiff.evaluate.results import MetricInfo, ResultsError, Row, Skipped, member
from sprdiff.evaluate.targets import Target

HOSTILE = "<script>alert(1)</script>\"'&`|[x](javascript:1)$x$_\u202e\x07.png"
VOID = {"meta", "link", "input", "img", "br", "wbr"}


class Page(HTMLParser):
    """A parser that keeps elements, attributes and texts, and fails if elements are not closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of an ordinary run; tests must not write to it."""
    return write(make_run(tmp_path_factory.mktemp("plain")))


def test_the_report_is_a_page_a_text_and_plots(plain: Path) -> None:
    assert (plain.parent.name, plain.name) == ("report", "index.html")
    files = {str(path.relative_to(plain.parent)) for path in plain.parent.rglob("*") if path.is_file()}
    assert files == {"index.html", "report.md", *(f"plots/{metric.name}.svg" for metric in METRICS)}
    page = page_of(plain)
    assert "4 pictures, 3 codecs, 4 rates" in page.said
    assert "sprdiff-tiny loses to vvc by 0.50 dB in PSNR." in page.said
    assert "96 patches: FID needs at least 5,000" in page.said and "sprdiff eval FOLDER -o DIR" in page.said


def test_nothing_is_fetched(tmp_path: Path) -> None:
    make_run(tmp_path, images=["kodim01.png", "kodim02.png"])
    keep_pictures(tmp_path, ["kodim01.png"], CODECS, RATES)
    index = write(tmp_path)
    page = page_of(index)
    names = {"src", "href", "xlink:href", "srcset", "action"}
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in names]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    content = index.read_text("utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|url\((?!#)", content)
    assert len(page.all("script")) == 1


def test_the_policy_lets_only_the_own_script_run(plain: Path) -> None:
    content = plain.read_text("utf-8")
    script = content[content.index("<script>") + 8 : content.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta for meta in page_of(plain).all("meta") if "http-equiv" in meta)["content"]
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_ids_are_unique_and_links_inside_the_page_lead_somewhere(plain: Path) -> None:
    page = page_of(plain)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    inside = [attributes["href"][1:] for attributes in page.all("a")]
    assert inside and set(inside) <= set(ids)
    used = {value[1:] for a in page.all("use") for name, value in a.items() if name.endswith("href")}
    assert used <= set(ids)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    metric = MetricInfo("../x", HOSTILE, HOSTILE, "up", HOSTILE, "image", None)
    index = write(
        make_run(
            tmp_path,
            images=[HOSTILE],
            codecs=["sprdiff-tiny", HOSTILE],
            metrics=[*METRICS, metric],
            figure=lambda codec, i, rate: {**figures(codec, i, rate), "../x": rate},
            change=lambda row: lost(row, HOSTILE) if row.target_bpp == RATES[0] else row,
            command=HOSTILE,
            version=HOSTILE,
            skipped=[Skipped(HOSTILE, HOSTILE)],
        )
    )
    page = page_of(index)
    assert len(page.all("script")) == 1
    assert "<script>alert(1)</script>" in page.said
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    content = index.read_text("utf-8")
    assert "\u202e" not in content and "\x07" not in content
    assert {path.name for path in (index.parent / "plots").iterdir()} == {
        f"{r.name}.svg" for r in METRICS
    } | {"metric-4.svg"}
    markdown = (index.parent / "report.md").read_text("utf-8")
    assert "\u202e" not in markdown
    commands = [line for line in markdown.splitlines() if line.startswith("    ")]
    assert all(
        "<script" not in line.replace(r"\<script", "")
        for line in markdown.splitlines()
        if line not in commands
    )


def test_plots_with_hostile_names_are_sound_xml(tmp_path: Path) -> None:
    results = load(make_run(tmp_path, codecs=["sprdiff-tiny", HOSTILE, "_hidden", "编码"]))
    svg = plots.curves(results, results.metrics[0])
    assert svg is not None
    words = " ".join(ElementTree.fromstring(svg).itertext())
    assert "<script>alert(1)</script>" in words and "_hidden" in words and "编码" in words and "$x$" in words


def test_escaping() -> None:
    assert printable("\ud800\n") == "\\ud800\\n"
    assert escape("a|b*c_d\n") == "a\\|b\\*c\\_d\\\\n"


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    make_run(tmp_path, metrics=METRICS[:2])
    first, second = (write(tmp_path, tmp_path / name) for name in ("one", "two"))
    for path in sorted(path for path in first.parent.rglob("*") if path.is_file()):
        assert path.read_bytes() == (second.parent / path.relative_to(first.parent)).read_bytes(), path.name


def test_markdown_has_every_table_in_full(plain: Path) -> None:
    markdown = (plain.parent / "report.md").read_text("utf-8")
    assert "| sprdiff-tiny |" in markdown and "![PSNR over bits per pixel](plots/psnr.svg)" in markdown
    for line in markdown.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1 and len(block.splitlines()) > 2


def test_plots_show_every_codec_and_published_curves_on_kodak_only(tmp_path: Path) -> None:
    own = load(make_run(tmp_path / "own"))
    svg = plots.curves(own, own.metrics[1])
    assert svg is not None and all(f">{codec}<" in svg for codec in CODECS) and "published" not in svg
    kodak = load(make_run(tmp_path / "kodak", images=["kodim01.png", "kodim02.png"]))
    svg = plots.curves(kodak, kodak.metrics[1])
    assert svg is not None and "StableCodec, published" in svg and "stroke-dasharray" in svg


def test_no_two_of_twenty_codecs_are_drawn_alike() -> None:
    looks = {(plots.style(i).colour, plots.style(i).marker, str(plots.style(i).dashes)) for i in range(20)}
    assert len(looks) == 20
    assert len({plots.style(i).marker for i in range(10)}) == 10


def test_inline_plots_follow_the_colour_scheme_and_keep_their_names_apart(tmp_path: Path) -> None:
    results = load(make_run(tmp_path))
    drawn = [plots.inline_curves(results, metric) for metric in results.metrics]
    ids: list[str] = []
    for svg in drawn:
        assert (
            svg is not None
            and svg.startswith("<svg viewBox=")
            and plots.INK not in svg
            and "var(--ink)" in svg
        )
        ids += re.findall(r'\bid="([^"]*)"', svg)
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= set(re.findall(r'\bid="([^"]*)"', svg))
    assert len(ids) == len(set(ids))


def test_one_image_one_codec_one_rate_is_enough(tmp_path: Path) -> None:
    index = write(make_run(tmp_path, images=["a.png"], codecs=["jpeg"], rates=[0.02]))
    assert "1 picture, 1 codec, 1 rate." in page_of(index).said


# Pictures


def test_scenes_hold_original_and_decoded_pictures_at_the_size_of_the_run(tmp_path: Path) -> None:
    make_run(tmp_path)
    keep_pictures(tmp_path, ["b.png"], CODECS[:2], RATES)
    found, notes = scenes(load(tmp_path), count=4, rates=[Target(0.01), Target(0.04)])
    (scene,) = found
    assert (scene.image, scene.width, scene.height, notes) == ("b.png", WIDTH, HEIGHT, ())
    assert scene.original is not None and scene.original.startswith("data:image/webp;base64,")
    assert [(shot.codec, shot.rate) for shot in scene.shots] == [
        ("sprdiff-tiny", Target(0.01)),
        ("vvc", Target(0.01)),
        ("sprdiff-tiny", Target(0.04)),
        ("vvc", Target(0.04)),
    ]
    assert scene.shots[0].caption.startswith("30 bytes, MS-SSIM 0.6")


def test_scenes_are_spread_over_the_run(tmp_path: Path) -> None:
    images = [f"{i}.png" for i in range(8)]
    make_run(tmp_path, images=images, rates=[0.02])
    keep_pictures(tmp_path, images, CODECS[:1], [0.02])
    found, _ = scenes(load(tmp_path), count=2, rates=[Target(0.02)])
    assert [scene.image for scene in found] == ["2.png", "6.png"]


def test_an_original_that_is_another_file_is_left_out_and_said(tmp_path: Path) -> None:
    make_run(tmp_path, metrics=METRICS[:1])
    keep_pictures(tmp_path, ["a.png", "b.png"], CODECS, [0.02])
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "originals" / "a.png")
    (tmp_path / "originals" / "b.png").unlink()
    found, notes = scenes(load(tmp_path), count=4, rates=[Target(0.02)])
    assert [scene.original for scene in found] == [None, None]
    assert notes == (
        "The original a.png is not shown: it is another file than the run's.",
        "The original b.png is not shown: it cannot be read.",
    )
    assert "it is another file" in page_of(write(tmp_path, picture_rates=[Target(0.02)])).said


def test_a_decoded_picture_of_another_size_is_left_out_and_said(tmp_path: Path) -> None:
    make_run(tmp_path)
    keep_pictures(tmp_path, ["a.png"], CODECS[:2], [0.02])
    Image.new("RGB", (9, 9)).save(member(tmp_path, "images", "vvc", Target(0.02), "a.png", ".png"))
    found, notes = scenes(load(tmp_path), count=4, rates=[Target(0.02)])
    assert [shot.codec for shot in found[0].shots] == ["sprdiff-tiny"]
    assert notes == ("a.png by vvc is not shown: it has 9 x 9 pixels, not 192 x 128.",)


def test_originals_may_lie_elsewhere(tmp_path: Path) -> None:
    make_run(tmp_path / "run", metrics=METRICS[:1])
    keep_pictures(tmp_path / "run", ["a.png"], CODECS, [0.02])
    (tmp_path / "run" / "originals").rename(tmp_path / "moved")
    assert scenes(load(tmp_path / "run"), count=1, rates=[Target(0.02)])[0][0].original is None
    page = page_of(write(tmp_path / "run", originals=tmp_path / "moved", picture_rates=[Target(0.02)]))
    assert "a.png, original" in [image.get("alt") for image in page.all("img")]


def test_without_kept_pictures_the_page_says_how_to_keep_them(plain: Path) -> None:
    assert "sprdiff eval --keep" in page_of(plain).said


# What is refused


def test_a_folder_with_other_files_is_not_written_into(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    for name in ("letter.txt", "index.html"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        with pytest.raises(OutputError, match="holds other files than a report"):
            write(tmp_path / "run", out)
        assert [path.name for path in out.iterdir()] == [name] and (out / name).read_text() == "mine"


def test_a_report_is_replaced(tmp_path: Path) -> None:
    make_run(tmp_path, metrics=METRICS[:1])
    write(tmp_path)
    make_run(tmp_path, codecs=CODECS[:2], metrics=METRICS[:1])
    assert "2 codecs" in page_of(write(tmp_path)).said


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is no folder"):
        write(tmp_path / "run", tmp_path / "out")


def test_unknown_reference_and_rate_name_what_there_is(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(ResultsError, match="has no codec avif: it has sprdiff-tiny, vvc, jpeg"):
        write(tmp_path, reference="avif")
    with pytest.raises(
        ResultsError, match=r"has no rate 0\.5 bpp: it has 0\.01 bpp, 0\.02 bpp, 0\.03 bpp, 0\.04 bpp"
    ):
        write(tmp_path, picture_rates=[Target(0.5)])
    assert not (tmp_path / "report").exists()


def test_damaged_results_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_run(tmp_path)
    path = tmp_path / "rows.jsonl"
    lines = path.read_text("utf-8").splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), "metrics": "<b>"})
    path.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(ResultsError, match=r"rows\.jsonl line 2"):
        write(tmp_path)
    assert not (tmp_path / "report").exists()


def test_rows_of_unreached_rates_and_their_reason_are_shown(tmp_path: Path) -> None:
    def change(row: Row) -> Row:
        return lost(row) if row.codec == "jpeg" and row.target_bpp == 0.01 else row

    said = page_of(write(make_run(tmp_path, change=change, metrics=METRICS[:1]))).said
    assert "its smallest file has 900 bytes" in said and "0 of 4 pictures" in said
