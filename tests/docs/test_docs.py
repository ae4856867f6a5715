"""The documentation is true: its commands and snippets run, its lists are complete, its figures are those of
the code.

Pages are README.md, CONTRIBUTING.md and all of docs/. Blocks in ``sh`` and ``python`` run page by page, top
to bottom, in one folder with a photograph photo.jpg. A block that cannot run says why in a comment above it:
``<!-- not run: reason -->``. `docs_rules` holds what is asked of every command, run or not.
"""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sprdiff
import sprdiff.errors
import sprdiff.evaluate
from conftest import photo
from docs_blocks import PYTHON, SHELL, Block, blocks_of, commands_in, prose_of, shell_lines, spans_of
from docs_rules import (
    ROOT,
    cli_commands,
    complaints_about,
    complaints_about_line,
    complaints_about_python,
    complaints_about_span,
    is_setup,
    load_script,
    names_imported,
    pyproject,
)

DOCS = ROOT / "docs"
WITH_SERVERS = {"docs/serve.md"}
RUNNER = Path(__file__).with_name("docs_runner.py")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LIMIT_ROW = re.compile(r"^\| .+ \| ([\d,.]+) \| `(sprdiff[\w.]+)` \|$", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def runnable(page: Path) -> list[Block]:
    """The blocks of a page that are run, without what is set-up."""
    blocks = [b for b in blocks_of(page, name_of(page)) if b.language in (SHELL, PYTHON) and b.reason is None]
    kept = [b if b.language == PYTHON else without_setup(b) for b in blocks]
    return [block for block in kept if block.code.strip()]


def without_setup(block: Block) -> Block:
    if not any(is_setup(command) for line in shell_lines(block.code) for command in commands_in(line)):
        return block  # as it stands, here-documents and all
    left = [line for line in shell_lines(block.code) if not is_setup(commands_in(line)[0])]
    return Block(block.page, block.line, block.language, "\n".join(left), None)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_names_on_the_page_exist(page: Path) -> None:
    complaints = [
        f"{block.where}: {text}"
        for block in blocks_of(page, name_of(page))
        for text in complaints_about(block)
    ]
    complaints += [f"`{span}`: {text}" for span in spans_of(page) for text in complaints_about_span(span)]
    assert not complaints, "\n".join(complaints)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `python` and the programs of the package, as an installation would put them on the
    PATH."""
    folder = tmp_path_factory.mktemp("bin")
    bodies = {"python": 'exec "{0}" "$@"'}
    for name, target in pyproject()["project"]["scripts"].items():
        module, function = target.split(":")
        bodies[name] = (
            f'exec "{{0}}" -c \'import sys; from {module} import {function}; sys.exit({function}())\' "$@"'
        )
    for name, body in bodies.items():
        tool = folder / name
        tool.write_text("#!/bin/sh\n" + body.format(sys.executable) + "\n", "utf-8")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return folder


def pages_to_run() -> list[Any]:
    """Pages with something to run; those that start a server belong to the services."""
    marks = {True: [pytest.mark.services], False: []}
    return [
        pytest.param(page, id=name_of(page), marks=marks[name_of(page) in WITH_SERVERS])
        for page in PAGES
        if runnable(page)
    ]


@pytest.mark.parametrize("page", pages_to_run())
def test_snippets_run(page: Path, tools: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    Image.fromarray(photo(256, 384)).save(work / "photo.jpg", quality=90)
    blocks = [{"language": b.language, "code": b.code, "where": b.where} for b in runnable(page)]
    (tmp_path / "blocks.json").write_text(json.dumps(blocks), "utf-8")
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        ),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(tmp_path / "blocks.json")],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_start_page_and_the_quick_start_run_nearly_all_they_show() -> None:
    for name, fewest in (("README.md", 2), ("docs/index.md", 1), ("docs/quickstart.md", 5)):
        assert len(runnable(ROOT / name)) >= fewest, name


@pytest.mark.parametrize(
    "line",
    [
        "sprdiff encod photo.jpg",
        "sprdiff data unpack x",
        "sprdiff encode photo.jpg --qualty 30",
        "sprdiff decode photo.sprd -z",
        "cat x | python -m sprdiff info --jsn -",
        "OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m sprdiff train pixel --dat x",
        "pip install 'sprdiff[nothing]'",
        "pip install torch==1.0",
        "python -m pip install leftpad",
        "make coffee",
        "python scripts/nothing.py",
        "python scripts/demo.py --bbp 0.1",
        "pip install . && sprdiff info",
        "echo 'not closed",
    ],
)
def test_the_rules_see_what_is_wrong(line: str) -> None:
    assert list(complaints_about_line(line))


@pytest.mark.parametrize(
    "line",
    [
        "sprdiff encode photo.jpg small.sprd --max-bytes 1200  # --comment",
        "sprdiff train STAGE --preset tiny [--data …] --out RUN [--init CHECKPOINT …] [--resume]",
        "if sprdiff info --json photo.sprd > about.json 2>&1; then echo --anything; fi",
        "sprdiff",
        "sprdiff data --help",
        "pip install -q 'sprdiff[eval,sd]' s3fs",
        "git clone URL sprdiff && cd sprdiff",
        "make demo PYTHON=python3.12",
        "python scripts/demo.py --bpp 0.1",
    ],
)
def test_the_rules_let_pass_what_is_right(line: str) -> None:
    assert not list(complaints_about_line(line))


@pytest.mark.parametrize(
    "code",
    [
        "from sprdiff import Codek",
        "import sprdiff\nsprdiff.encod('photo.jpg')",
        "from sprdiff import Codec\nCodec.from_pretrained('x', devise='cuda')",
        "import sprdiff\nsprdiff.encode('photo.jpg', bytes=3)",
        "x = [1, …]",
    ],
)
def test_the_rules_see_what_is_wrong_in_python(code: str) -> None:
    assert list(complaints_about_python(code))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```sh\nsprdiff info\n", "never closed"),
        ("```\nsprdiff info\n```\n", "no sh"),
        ("```fortran\nx\n```\n", "no rule"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "must say why"),
        ("<!-- not run: needs a GPU -->\n```sh\nsprdiff nothing\n```\n", "no command nothing"),
        ("```console\n$ sprdiff info --nothing\nlines\n```\n", "no option --nothing"),
    ],
)
def test_a_page_that_is_wrong_is_found(text: str, fault: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    try:
        complaints = [found for block in blocks_of(page, "page.md") for found in complaints_about(block)]
    except AssertionError as error:
        complaints = [str(error)]
    assert any(fault in complaint for complaint in complaints), complaints


def test_a_snippet_that_fails_fails(tmp_path: Path) -> None:
    for code, language in (
        ("assert False", "python"),
        ("false\ntrue", "sh"),
        ("cat nothing | true\nnothing", "sh"),
    ):
        (tmp_path / "b.json").write_text(
            json.dumps([{"language": language, "code": code, "where": "p:1"}]), "utf-8"
        )
        runner = [sys.executable, str(RUNNER), str(tmp_path / "b.json")]
        done = subprocess.run(runner, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode != 0 and "p:1 failed" in done.stderr


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    made = load_script("make_cli_docs").page()
    assert made == (DOCS / "cli.md").read_text("utf-8"), "run python scripts/make_cli_docs.py"
    assert "## sprdiff encode" in made and "`--max-bytes`" in made


def test_every_command_and_option_says_what_it_does() -> None:
    for name, command in cli_commands().items():
        assert command.help, f"sprdiff {name} has no help"
        for parameter in command.parameters:
            assert len(parameter.help) > 2, f"sprdiff {name}: {parameter.names[-1]} has no help"


def shown_in_the_api() -> set[str]:
    return set(re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE))


def is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, sprdiff.errors.SprdiffError)


def test_every_error_is_a_public_name() -> None:
    errors = {name for name, value in vars(sprdiff.errors).items() if is_error(value)}
    assert errors <= set(sprdiff.__all__)


def test_every_public_name_is_in_the_api() -> None:
    names = {f"sprdiff.{name}" for name in sprdiff.__all__ if name != "__version__"}
    names |= {f"sprdiff.evaluate.{name}" for name in sprdiff.evaluate.__all__}
    assert names <= shown_in_the_api(), "not in docs/api.md"


def test_what_snippets_import_is_in_the_api() -> None:
    shown = [pkgutil.resolve_name(name) for name in shown_in_the_api()]
    blocks = [block for page in PAGES for block in blocks_of(page, name_of(page)) if block.language == PYTHON]
    imported = [(name, value) for block in blocks for name, value in names_imported(block.code).items()]
    assert len(imported) > 5
    missing = {name for name, value in imported if not inspect.ismodule(value) and value not in shown}
    assert not missing


def test_everything_in_the_api_says_something_about_itself() -> None:
    for name in shown_in_the_api():
        assert len((pkgutil.resolve_name(name).__doc__ or "").split()) > 3, name


def test_the_stated_limits_are_those_of_the_code() -> None:
    rows = LIMIT_ROW.findall((DOCS / "security.md").read_text("utf-8"))
    assert len(rows) >= 12
    for value, name in rows:
        assert float(value.replace(",", "")) == pkgutil.resolve_name(name), name


def test_the_picture_of_the_readme_has_the_stated_rate() -> None:
    found = re.search(
        r"of (\d+)x(\d+) pixels in a file of \*\*([\d,]+) bytes\*\* \((0\.\d+) bits per pixel\)",
        prose_of(ROOT / "README.md"),
    )
    assert found, "README.md does not state the bytes of its picture"
    width, height, size, bpp = found.groups()
    assert f"{8 * int(size.replace(',', '')) / (int(width) * int(height)):.4f}" == bpp


def test_the_start_page_does_not_repeat_the_readme() -> None:
    readme = {line.strip() for line in (ROOT / "README.md").read_text("utf-8").splitlines()}
    lines = [line.strip() for line in (DOCS / "index.md").read_text("utf-8").splitlines()]
    assert [line for line in lines if len(line.split()) > 3 and line in readme] == []


def test_the_photograph_of_the_architecture_is_that_of_the_readme() -> None:
    """Both have the figures of ``make demo``: blocks add up to the stream, header and stream to the file."""
    page = (DOCS / "architecture.md").read_text("utf-8")
    way = page[page.index("## One photograph") : page.index("## Glossary")]
    rows = re.findall(r"^ *\| (?:z|pass \d) \| [\d,]+ \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$", way, re.M)
    symbols, nonzero = (sum(int(row[i].replace(",", "")) for row in rows) for i in (0, 1))
    assert (
        len(rows) == 7 and f"{symbols:,} symbols are coded" in way and f"{nonzero:,} of them are not" in way
    )
    cost = re.search(r"cost ([\d.]+) bytes by the tables", way)
    assert cost and abs(sum(float(row[2]) for row in rows) - float(cost[1])) < 0.05 * (len(rows) + 1)
    header, stream, size = (
        int(re.search(pattern, way)[1])  # type: ignore[index]
        for pattern in (r"header of (\d+) bytes", r"the stream has (\d+)", r"which makes (\d+) bytes")
    )
    assert header + stream == size and f"a file of **{size} bytes**" in (ROOT / "README.md").read_text(
        "utf-8"
    )
    assert len(re.findall(r"\b[0-9a-f]{2}\b(?=.*#)", way)) == header


def test_bash_is_there() -> None:
    assert shutil.which("bash"), "the snippets are run by bash"
