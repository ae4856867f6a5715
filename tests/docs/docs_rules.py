"""The rules for commands in the documentation, run or not; each rule yields complaints.

Some commands fetch packages or build the whole project. No test runs them; only their rules check them:

- ``pip install``: the extras of this project exist, a version of torch is the one that the Makefile pins, and
  other packages are those that the pages may name;
- ``make``: the target exists;
- ``git clone``: nothing is known about the address.

Everything else is run, unless its block says why not. Even then the sub-commands and options of ``sprdiff``
must exist, and so must the scripts of this repository and their options.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docs_blocks import PYTHON, SHELL, TEXTS, Block, commands_in, typed_lines

ROOT = Path(__file__).parents[2]
OTHER_PACKAGES = {"torch", "s3fs", "bitsandbytes", "moto", "gcsfs"}
"""What pages may tell users to install beside the extras."""
_COMMAND_LIKE = re.compile(r"(\$ |sprdiff [a-z]|pip |python |make [a-z]|torchrun |curl |podman |docker )")


def is_setup(command: list[str]) -> bool:
    """Whether a command is set-up: checked by its rule, not run."""
    words = _without_python(command)
    return words[:2] in (["pip", "install"], ["git", "clone"]) or words[0] == "make"


def _without_python(command: list[str]) -> list[str]:
    """``python -m pip install`` is ``pip install``; a folder before the program's name does not matter."""
    words = [Path(command[0]).name, *command[1:]]
    while words[0] in ("python", "python3", "torchrun", "sudo") and "-m" in words[:-1]:
        words = words[words.index("-m") + 1 :]
    return words


def complaints_about(block: Block) -> Iterator[str]:
    """Everything that is wrong with a block, without running it."""
    if block.reason is not None and len(block.reason.split()) < 2:
        yield "a block that is not run must say why"
    if block.language not in {SHELL, PYTHON, "console"} | TEXTS:
        yield f"no rule for blocks in {block.language}"
    if block.language in TEXTS and (hidden := [x for x in block.code.splitlines() if _COMMAND_LIKE.match(x)]):
        yield f"a command in a block that is no sh: {hidden[0]}"
    for line in typed_lines(block):
        yield from complaints_about_line(line)
    if block.language == PYTHON:
        yield from complaints_about_python(block.code)


def complaints_about_line(line: str) -> Iterator[str]:
    """What is wrong with a line of shell."""
    try:
        commands = commands_in(line)
    except ValueError as error:
        yield f"{line}: {error}"
        return
    setup = [is_setup(command) for command in commands]
    if any(setup) and not all(setup) and not _goes_into_the_clone(commands):
        yield f"{line}: set-up and what can be run need lines of their own"
    for command in commands:
        yield from complaints_about_command(command)


def _goes_into_the_clone(commands: list[list[str]]) -> bool:
    return [words[0] for words in commands] == ["git", "cd"]


def complaints_about_command(command: list[str]) -> Iterator[str]:
    """What is wrong with one command."""
    words = _without_python(command)
    if words[0] == "sprdiff":
        yield from _of_sprdiff(words[1:])
    elif words[:2] == ["pip", "install"]:
        for word in words[2:]:
            yield from _of_package(word)
    elif words[0] == "make":
        yield from (f"make has no target {w}" for w in words[1:] if "=" not in w and w not in make_targets())
    elif words[0] in ("python", "python3", "bash") and len(words) > 1 and words[1].endswith((".py", ".sh")):
        yield from _of_script(words[1], words[2:])


def _of_sprdiff(words: list[str]) -> Iterator[str]:
    tree = cli_commands()
    name = ""
    while words and f"{name} {words[0]}".strip() in tree:
        name = f"{name} {words.pop(0)}".strip()
    if tree[name].is_group and words and not words[0].startswith("-"):
        yield f"sprdiff has no command {f'{name} {words[0]}'.strip()}"
        return
    yield from (
        f"sprdiff {name} has no option {o}" for o in options_in(words) if o not in tree[name].options()
    )


def options_in(words: list[str]) -> list[str]:
    """The options among words: ``[--data`` of a synopsis is ``--data``, ``--bpp=0.02`` ``--bpp``, ``-j2``
    ``-j``."""
    found = []
    for word in (word.strip("[]…") for word in words):
        if match := re.match(r"--[A-Za-z][\w-]*|-[A-Za-z]", word):
            found.append(match[0])
    return found


def _of_package(word: str) -> Iterator[str]:
    if word.startswith("-") or word.endswith((".whl", ".tar.gz")):
        return
    match = re.fullmatch(r"(\.|[\w.-]+?)(?:\[([\w,-]+)\])?(?:==([\w.]+))?", word)
    if match is None:
        yield f"pip cannot install {word}"
        return
    name, extras, version = match[1], match[2], match[3]
    if name in (".", "sprdiff"):
        yield from (
            f"there is no extra {extra}"
            for extra in (extras or "").split(",")
            if extra and not is_extra(extra)
        )
    elif name not in OTHER_PACKAGES:
        yield f"pages do not install {name}"
    if name == "torch" and version is not None and f"torch=={version}" not in makefile():
        yield f"the Makefile pins another torch than {version}"


def _of_script(path: str, words: list[str]) -> Iterator[str]:
    """A script of this repository: it exists, and its text names the options."""
    script = ROOT / path
    if not script.is_file():
        if "/" in path:
            yield f"there is no {path}"
        return
    text = script.read_text("utf-8")
    # Shell scripts hand on what they do not know; theirs stand in a case or in the comment on top.
    yield from (
        f"{path} has no option {o}"
        for o in options_in(words)
        if not re.search(rf"(?<![\w-]){o}(?![\w-])", text)
    )


def complaints_about_python(code: str) -> Iterator[str]:
    """What is wrong with a snippet of Python that can be seen without running it: names and keywords of
    ours."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        yield f"line {error.lineno}: {error.msg}"
        return
    try:
        names = names_imported(code)
    except ImportError as error:
        yield str(error)
        return
    for node in ast.walk(tree):
        yield from _of_node(node, names)


def names_imported(code: str) -> dict[str, Any]:
    """What a snippet imports of ours, by the name that it gives it.

    Raises:
        ImportError: there is no such thing.
    """
    names: dict[str, Any] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in (alias for alias in node.names if alias.name.split(".")[0] == "sprdiff"):
                module = importlib.import_module(alias.name)
                names[alias.asname or "sprdiff"] = (
                    module if alias.asname else importlib.import_module("sprdiff")
                )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sprdiff":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not _has(module, alias.name):
                    raise ImportError(f"{node.module} has no {alias.name}")
                names[alias.asname or alias.name] = _attribute(module, alias.name)
    return names


def _has(value: Any, name: str) -> bool:
    try:
        _attribute(value, name)
    except AttributeError:
        return False
    return True


def _attribute(value: Any, name: str) -> Any:
    if inspect.ismodule(value) and not hasattr(value, name):
        try:
            return importlib.import_module(f"{value.__name__}.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(name) from error
    return getattr(value, name)


def _of_node(node: ast.AST, names: dict[str, Any]) -> Iterator[str]:
    """An attribute of a module or class of ours exists, a call of ours has keywords that there are."""
    if isinstance(node, ast.Call):
        function = _resolved(node.func, names)
        if callable(function):
            parameters = inspect.signature(function).parameters
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                given = [k.arg for k in node.keywords if k.arg is not None]
                yield from (
                    f"{ast.unparse(node.func)} takes no {name}" for name in given if name not in parameters
                )
    elif isinstance(node, ast.Attribute):
        owner = _resolved(node.value, names)
        if (inspect.ismodule(owner) or inspect.isclass(owner)) and _resolved(node, names) is None:
            yield f"{ast.unparse(node.value)} has no {node.attr}"


def _resolved(node: ast.expr, names: dict[str, Any]) -> Any:
    """The thing of ours that an expression names, or None."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, names)
        return _attribute(owner, node.attr) if owner is not None and _has(owner, node.attr) else None
    return None


def complaints_about_span(span: str) -> Iterator[str]:
    """What is wrong with a command in the running text."""
    if re.match(r"sprdiff [a-z-]|pip install |make [a-z]|python [a-z-]", span) and "=" not in span.split()[0]:
        yield from complaints_about_line(span)


@cache
def load_script(name: str) -> Any:
    """A module of the folder scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@cache
def cli_commands() -> dict[str, Any]:
    """The commands of sprdiff by name, as scripts/make_cli_docs.py sees them."""
    return {command.name: command for command in load_script("make_cli_docs").commands()}


@cache
def makefile() -> str:
    return (ROOT / "Makefile").read_text("utf-8")


@cache
def make_targets() -> set[str]:
    phony = re.search(r"^\.PHONY:(.*)$", makefile(), re.MULTILINE)
    return set(phony[1].split()) if phony else set()


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def is_extra(name: str) -> bool:
    return name in pyproject()["project"]["optional-dependencies"]
