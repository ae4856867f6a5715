"""Writes the page of the command line, docs/cli.md, from the commands themselves.

    python scripts/make_cli_docs.py            # writes it
    python scripts/make_cli_docs.py --check    # says whether it is up to date

A test makes the page anew and compares; it also fails when a command or an option says nothing about itself.
"""

from __future__ import annotations

import argparse
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import typer

from sprdiff.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
KINDS = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}
"""The word for a value where the command names nothing better."""
HEAD = """\
# Command line

<!-- Made by scripts/make_cli_docs.py: change the help texts in src/sprdiff/cli/, then run it. -->

`sprdiff COMMAND --help` prints the same on a terminal, and `sprdiff --version` prints the version.
`python -m sprdiff` is the same as `sprdiff`.

| exit status | means |
|---|---|
| 0 | everything is done |
| 1 | something failed, with one line on standard error for each failure; the other files are done |
| 2 | wrong usage |
| 130 | interrupted |
| 141 | the reader of standard output has gone |

No half-written file is left behind, and no file is overwritten without `-f`.
In place of a file, `-` means standard input or output, and so do `/dev/stdin` and `/dev/stdout`.
`SPRDIFF_DEBUG=1` shows where an unexpected error came from.
Progress bars appear on a terminal only.
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option.

    Attributes:
        names: as they are typed, ``-q``, ``--quality``; of an argument what stands for it.
        value: what stands for its value, with its range; empty for a switch.
        group: heading under which it is listed.
    """

    names: tuple[str, ...]
    value: str
    default: str
    help: str
    group: str
    required: bool
    is_option: bool


@dataclass(frozen=True)
class Command:
    """A command with its whole name, ``data pack``; the parameters in the order of its help."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]
    is_group: bool = False

    def options(self) -> set[str]:
        """Everything that may be typed with a dash."""
        names = {name for p in self.parameters if p.is_option for name in p.names}
        return names | {"--help", "-h"}


def commands() -> list[Command]:
    """Return every command, groups included; the root comes first under the empty name."""
    return list(_walk(typer.main.get_command(app), ""))


def _walk(command: Any, name: str) -> Iterator[Command]:
    children = getattr(command, "commands", {})
    hints = typing.get_type_hints(command.callback, include_extras=True) if command.callback else {}
    parameters = tuple(_parameter(p, hints.get(p.name)) for p in command.params)
    yield Command(name, " ".join((command.help or "").split()), parameters, bool(children))
    for child in children.values():
        if not child.hidden:
            yield from _walk(child, f"{name} {child.name}".strip())


def _parameter(parameter: Any, hint: Any) -> Parameter:
    is_option = parameter.param_type_name == "option"
    switch = bool(getattr(parameter, "is_flag", False))
    value = "" if switch else parameter.metavar or _kind(hint)
    if not is_option and not parameter.metavar:
        value = parameter.name.upper()
    names = (*parameter.opts, *parameter.secondary_opts) if is_option else (value,)
    return Parameter(
        names=tuple(sorted(names, key=lambda name: name.startswith("--"))),
        value=value + _limits(hint) if is_option else value,
        default="" if not is_option else _default(parameter, switch),
        help=" ".join((parameter.help or "").split()),
        group=getattr(parameter, "rich_help_panel", None) or ("Options" if is_option else "Arguments"),
        required=bool(parameter.required),
        is_option=is_option,
    )


def _bare(hint: Any) -> Any:
    """Return the type of one value: ``list[Path] | None`` becomes Path."""
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            hint = typing.get_args(hint)[0]
            continue
        inner = [part for part in typing.get_args(hint) if part is not NoneType]
        if not inner:
            return hint
        hint = inner[0]


def _kind(hint: Any) -> str:
    return KINDS.get(_bare(hint), "VALUE")


def _limits(hint: Any) -> str:
    """Return limits such as ``, 1 or more``, from the declaration and not from the parsed command, whose form
    changes with typer."""
    declared = typing.get_args(hint)[1] if typing.get_origin(hint) is typing.Annotated else None
    low, high = getattr(declared, "min", None), getattr(declared, "max", None)
    if low is None:
        return "" if high is None else f", at most {high}"
    return f", {low} or more" if high is None else f", {low} to {high}"


def _default(parameter: Any, switch: bool) -> str:
    default = parameter.default
    if callable(default):
        default = default()
    if switch:  # a switch that is on can only be turned off by its second name
        return parameter.opts[0] if default is True and parameter.secondary_opts else ""
    return "" if default in (None, (), []) else f"{default:g}" if isinstance(default, float) else str(default)


def page() -> str:
    """Return the text of docs/cli.md."""
    listed = [command for command in commands() if command.name and not command.is_group]
    index = ["| command | what it does |", "|---|---|"]
    index += [f"| [`{c.name}`](#sprdiff-{c.name.replace(' ', '-')}) | {_cell(c.help)} |" for c in listed]
    return "\n".join([HEAD, *index, "", *(line for command in listed for line in _section(command))])


def _section(command: Command) -> Iterator[str]:
    usage = " ".join(
        p.names[0] if p.required else _optional(p.names[0]) for p in command.parameters if not p.is_option
    )
    needed = " ".join(
        f"{p.names[-1]} {p.value.split(',')[0]}" for p in command.parameters if p.is_option and p.required
    )
    yield from (f"## sprdiff {command.name}", "", command.help, "")
    yield from ("`" + " ".join(f"sprdiff {command.name} {usage} {needed} [OPTIONS]".split()) + "`", "")
    for group in dict.fromkeys(p.group for p in command.parameters):
        yield from _table(group, [p for p in command.parameters if p.group == group])


def _optional(name: str) -> str:
    return name if name.startswith("[") else f"[{name}]"


def _table(group: str, parameters: list[Parameter]) -> Iterator[str]:
    if not parameters[0].is_option:
        yield from ("| argument | what it is |", "|---|---|")
        yield from (f"| `{_cell(p.names[0])}` | {_cell(p.help)} |" for p in parameters)
    else:
        what = "option" if group == "Options" else f"option ({group[0].lower()}{group[1:]})"
        yield from (f"| {what} | value | default | what it does |", "|---|---|---|---|")
        for p in parameters:
            names = ", ".join(f"`{name}`" for name in p.names)
            default = "required" if p.required else f"`{_cell(p.default)}`" if p.default else ""
            yield f"| {names} | {_cell(p.value)} | {default} | {_cell(p.help)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="docs/cli.md from the commands themselves")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 if the page is out of date"
    )
    if not parser.parse_args().check:
        PAGE.write_text(page(), "utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text("utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE} is out of date: run python scripts/make_cli_docs.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
