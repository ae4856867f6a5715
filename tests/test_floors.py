"""The layout of the package: imports go down only, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sprdiff

SOURCE = Path(__file__).parents[1] / "src" / "sprdiff"
FLOORS = (  # lowest first; the names on one floor are siblings, which never import each other
    ("errors",),
    ("limits",),
    ("bitstream", "image"),
    ("models",),
    ("runtimes",),
    ("codec", "fileinfo"),
    ("evaluate",),
    ("train",),
    ("batch", "pillow", "serve"),
    ("cli",),
)
# Modules that belong to one idea count as one sibling.
PARTS = {"files": "image", "progress": "image", "ratecontrol": "codec", "coding": "codec", "pretrained": "codec",
         "__main__": "cli"}  # fmt: skip
HEAVY = {  # packages that only these parts may import
    "torch": {"models", "train", "evaluate", "runtimes"},
    "onnxruntime": {"runtimes", "train"},
    "constriction": {"bitstream"},
    "accelerate": {"train"},
    "diffusers": {"models"},
    "transformers": {"models"},
    "peft": {"models"},
    "huggingface_hub": {"models"},
    "pickle": set(),
}
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(module: str) -> str:
    """`image_colour` -> image, `bitstream.tables` -> bitstream."""
    first = module.split(".")[0]
    return PARTS.get(first, first.split("_")[0] if not first.startswith("__") else first)


def imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, and of what it takes from the package itself."""
    package = ("sprdiff", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from ([f"{module}.{alias.name}" for alias in node.names] if module == "sprdiff" else [module])


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
    assert [path.relative_to(SOURCE).as_posix() for path in knowing] == ["models/sd.py"]
    assert "torchvision" not in {name.partition(".")[0] for path in FILES for name in imports(path)}


def test_part_names() -> None:
    assert part_of("image_colour") == part_of("files") == "image"
    assert part_of("bitstream.tables") == "bitstream"
    assert part_of("__main__") == "cli"


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
