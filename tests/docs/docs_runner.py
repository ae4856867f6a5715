"""Runs the blocks of one page in the current folder, from top to bottom: ``python docs_runner.py
BLOCKS.json``.

Blocks of Python share one namespace, that of ``__main__``; each block of shell is a shell of its own. The
first that fails ends the run, with its place in the page on the last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from typing import Any


def run(block: dict[str, str], namespace: dict[str, Any]) -> bool:
    """Run a block; return whether it ran to its end."""
    sys.stdout.flush()
    if block["language"] == "sh":
        return subprocess.run(["bash", "-e", "-c", block["code"]], stdin=subprocess.DEVNULL).returncode == 0
    try:
        exec(compile(block["code"], block["where"], "exec"), namespace)  # the pages are our own
    except Exception:
        traceback.print_exc()
        return False
    return True


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        blocks = json.load(file)
    for block in blocks:
        if not run(block, sys.modules["__main__"].__dict__):
            sys.exit(f"{block['where']} failed")


if __name__ == "__main__":
    main()
