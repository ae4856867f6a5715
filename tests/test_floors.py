"""The layout of the package: imports go down only, and light commands stay light."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sprdiff

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sprdiff"
FLOORS = (  # lowest first; the names on one floor are siblings, which never import each other
    ("errors", "privacy"),
    ("limits",),
    ("common",),
    ("format", "imageio"),
    ("models", "packets"),
    ("runtime",),
    ("sd", "viewer"),
    ("loading", "options", "ratecontrol"),
    ("encoder",),
    # Not info.py: a module sprdiff.info would take the place of the function sprdiff.info once anything loads
    # it.
    ("codec", "fileinfo"),
    ("evaluate",),
    ("train",),
    ("batch", "pillow", "serve"),
    ("thumbnailer", "cli"),
    ("start",),
)
PARTS = {"interrupt": "errors", "__main__": "start"}
"""Modules that count as one sibling with another part."""
HEAVY = {  # packages that only these parts may import
    "torch": {"models", "runtime", "sd", "evaluate", "train"},
    "onnxruntime": {"runtime", "train"},
    "constriction": {"format"},
    "accelerate": {"train"},
    "diffusers": {"sd"},
    "transformers": {"sd"},
    "peft": {"sd"},
    "huggingface_hub": {"sd"},
    "reedsolo": {"packets"},
    "segno": {"viewer"},
    "pickle": set(),
}
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(module: str) -> str:
    """The part that a module belongs to: `format.tables` -> format."""
    first = module.split(".")[0]
    return PARTS.get(first, first)


def imports(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports: of modules, and of names with the module that they come from."""
    package = ("sprdiff", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    if path == SOURCE / "__init__.py":
        return  # the public names, loaded lazily: see below
    own = part_of(path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", "."))
    assert own in LEVEL, f"{path.name} is on no floor: add it to the table"
    for name in imports(path):
        root, _, rest = name.partition(".")
        if root != "sprdiff":
            assert own in HEAVY.get(root, {own}), f"{root} is not for {own}"
        elif rest and rest != "__version__":
            other = part_of(rest)
            assert other == own or LEVEL[other] < LEVEL[own], f"{own} may not import {other}"


def test_one_file_knows_the_libraries_of_pretrained_parts() -> None:
    wanted = {"diffusers", "transformers", "peft"}
    knowing = [path for path in FILES if wanted & {name.partition(".")[0] for name in imports(path)}]
    assert [path.relative_to(SOURCE).as_posix() for path in knowing] == ["sd/loading.py"]
    assert "torchvision" not in {name.partition(".")[0] for path in FILES for name in imports(path)}


def test_part_names() -> None:
    assert part_of("imageio.colour") == "imageio"
    assert part_of("codec") == "codec"
    assert part_of("__main__") == "start"


def test_every_part_is_on_a_floor_and_every_floor_holds_parts() -> None:
    parts = {part_of(path.relative_to(SOURCE).parts[0].removesuffix(".py")) for path in FILES}
    assert parts - {"__init__"} == set(LEVEL)


def test_contributing_has_the_same_table() -> None:
    layout = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Layout")[2]
    rows = re.findall(r"^\| (`[\w/.]+`(?: · `[\w/.]+`)*) \|", layout, re.M)
    told = [[name.removesuffix(".py") for name in re.findall(r"`([\w.]+)/?`", row)] for row in rows]
    modules = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert [{part_of(name) for name in names} for names in told] == [set(names) for names in FLOORS]
    assert {name for names in told for name in names} == modules


def test_the_tree_of_the_readme_has_every_part() -> None:
    tree = re.search(r"```text\n(src/sprdiff/ .*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert tree is not None
    lines = [line.split(maxsplit=1) for line in tree[1].splitlines()]
    assert all(len(line) == 2 for line in lines), "a name without a word about it"
    told = {name.rstrip("/") for name, _ in lines}
    parts = {path.relative_to(SOURCE).parts[0] for path in FILES} - {"__init__.py", "__main__.py"}
    assert parts | {"weights/tiny"} <= told
    folders = {"web", "tests", "benchmarks", "scripts", "runs", "docs", "dev", "share"}
    assert folders <= told and all((ROOT / folder).is_dir() for folder in folders)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Imports inside functions count too: they would only hide a circle."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        name = ".".join(("sprdiff", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        graph[name] = set() if name == "sprdiff" else {*imports(path)}
    for name, imported in graph.items():
        modules = {other if other in graph else other.rpartition(".")[0] for other in imported}
        graph[name] = (modules & {*graph}) - {"sprdiff"}
    assert len([*graphlib.TopologicalSorter(graph).static_order()]) == len(FILES)  # CycleError has the circle


@pytest.mark.parametrize(
    "path", sorted(SOURCE.glob("*/**/__init__.py")), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_folders_only_hand_on_names(path: Path) -> None:
    """A reader finds what is defined in a file that is named after it; the package itself loads its names
    lazily."""
    first, *rest = ast.parse(path.read_text("utf-8")).body
    assert isinstance(first, ast.Expr), "no docstring"
    for node in rest:
        handed_on = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert handed_on or isinstance(node, ast.ImportFrom), f"line {node.lineno} defines something"


def loaded_after(code: str) -> set[str]:
    """Top-level modules loaded in a fresh interpreter after running some code."""
    code += "\nimport sys; sys.stderr.write(' '.join({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_package_is_light() -> None:
    assert not loaded_after("import sprdiff") & {
        "torch",
        "onnxruntime",
        "PIL",
        "numpy",
        "constriction",
        "typer",
    }


@pytest.mark.parametrize(
    "arguments", [["info", "GOLDEN"], ["info", "--json", "GOLDEN"], ["info"], ["models"], ["--help"]]
)
def test_info_loads_no_network_runtime(arguments: list[str]) -> None:
    golden = Path(__file__).parent / "data" / "bitstream" / "worked_example.sprd"
    given = [str(golden) if word == "GOLDEN" else word for word in arguments]
    code = f"import sprdiff.cli\nassert sprdiff.cli.main({given!r}) == 0"
    assert not loaded_after(code) & {"torch", "onnxruntime", "onnx"}


def test_public_names_exist() -> None:
    assert all(getattr(sprdiff, name) is not None for name in sprdiff.__all__)
    assert set(sprdiff.__all__) <= set(dir(sprdiff))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sprdiff.nothing
