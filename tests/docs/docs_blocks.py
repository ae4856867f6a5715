"""The fenced blocks of a page and the commands in them, for the tests of the documentation.

::

    page ─► Block (```sh, ```python, …) ─► commands (lists of words) ─► complaints
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELL, PYTHON = "sh", "python"
CONSOLE = "console"
"""Typed lines begin with a dollar sign, the others are output."""
TEXTS = {"", "text", "hex", "json", "xml", "ini", "yaml", "toml", "html", "css", "dockerfile", "nginx"}
"""Languages whose blocks are never run; no command may hide in them."""
_NOT_RUN = re.compile(r"<!--\s*not run:?\s*(.*?)\s*-->$")
_FENCE = re.compile(r"(\s*)(`{3,})\s*([\w+-]*)")
_KEYWORDS = {"do", "then", "else", "time", "exec", "!", "{", "if", "while", "until"}
_BREAKS = set("();&|")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: number of its fence in the page.
        reason: why it is not run, from the comment above; None: it is run.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path, name: str) -> list[Block]:
    """Return the blocks of a page, from top to bottom."""
    lines = path.read_text("utf-8").splitlines()
    found, index = [], 0
    while index < len(lines):
        fence = _FENCE.match(lines[index])
        if fence is None:
            index += 1
            continue
        end = next((i for i in range(index + 1, len(lines)) if lines[i].strip() == fence[2]), None)
        assert end is not None, f"{name}:{index + 1}: this fence is never closed"
        above = _NOT_RUN.match(lines[index - 1].strip()) if index else None
        code = textwrap.dedent("\n".join(lines[index + 1 : end])) + "\n"
        found.append(Block(name, index + 1, fence[3], code, above[1] if above else None))
        index = end + 1
    return found


def prose_of(path: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"(?ms)^\s*(`{3,}).*?^\s*\1\s*$", "", path.read_text("utf-8"))


def spans_of(path: Path) -> Iterator[str]:
    """Return the texts `between backticks` on a page, outside of blocks."""
    yield from (match[2] for match in re.finditer(r"(`+)(.+?)\1", prose_of(path)))


def shell_lines(code: str) -> list[str]:
    """Return the lines of a script: lines that end in a backslash are joined, comments and empty ones are
    left out."""
    lines = re.sub(r"\\\n\s*", " ", code).splitlines()
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]


def typed_lines(block: Block) -> list[str]:
    """Return the lines of a block that somebody types into a shell."""
    if block.language == SHELL:
        return shell_lines(block.code)
    if block.language == CONSOLE:
        return [line[2:] for line in shell_lines(block.code) if line.startswith("$ ")]
    return []


def commands_in(line: str) -> list[list[str]]:
    """Return the commands of a line of shell, each as a list of words, without redirections, assignments and
    keywords."""
    # The ellipses and brackets of a synopsis are no words: sprdiff train STAGE [--resume] …
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if set(word) & set("<>") and not word.strip("<>&"):
            next(words, None)  # the file of a redirection
        elif set(word) <= _BREAKS:
            commands.append([])
        elif commands[-1] or not (word in _KEYWORDS or _ASSIGNMENT.match(word)):
            commands[-1].append(word)
    return [command for command in commands if command]
