"""The fuzzer: any bytes at a door must end in a sentence or in a one-line error. It uses Atheris, or
hypothesis without it.

    python tests/fuzz.py DOOR RUNS [SEED]        DOOR: one of attack_doors.DOORS
    python tests/fuzz.py DOOR FILE               what becomes of one file

A finding is written to ./crash-... by Atheris; put it into tests/attacks/DOOR with a line in make.py once it
is mended.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

LONGEST = 2**17
MEGABYTES = 3000
SECONDS = 60
"""The memory of the process, and the time for one input."""


def with_atheris(door: str, runs: int, seed: int) -> None:
    """Try a number of inputs, guided by the branches that they reach."""
    import atheris

    with atheris.instrument_imports(include=["sprdiff"]):
        import attack_doors as doors

        chosen = doors.DOORS[door]
        seeds = doors.seeds(door)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds):
            (Path(folder) / f"{number:04d}").write_bytes(data)
        options = [
            f"-runs={runs}",
            f"-seed={seed}",
            f"-max_len={LONGEST}",
            f"-rss_limit_mb={MEGABYTES}",
            f"-timeout={SECONDS}",
            "-verbosity=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, folder], lambda data: doors.met(chosen, data) and None)
        atheris.Fuzz()


def damaged(door: str) -> st.SearchStrategy[bytes]:
    """Return the seeds of a door with some bytes changed, cut out or put in."""
    import attack_doors as doors

    change = st.tuples(st.integers(0, LONGEST), st.integers(0, 2), st.binary(max_size=3))
    return st.builds(_changed, st.sampled_from(doors.seeds(door)), st.lists(change, max_size=6))


def _changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    made = bytearray(data)
    for place, removed, added in changes:
        place %= len(made) + 1
        made[place : place + removed] = added
    return bytes(made[:LONGEST])


def without(door: str, runs: int, seed: int) -> None:
    """Try a number of inputs, drawn by hypothesis."""
    import attack_doors as doors

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=runs, database=None, deadline=None, derandomize=False)
    @hypothesis.given(damaged(door))
    def meet(data: bytes) -> None:
        doors.met(doors.DOORS[door], data)

    meet()


def main(arguments: list[str]) -> None:
    """Run the fuzzer at one door."""
    door, what = arguments[:2]
    if not what.isdigit():
        import attack_doors as doors

        print(doors.met(doors.DOORS[door], Path(what).read_bytes()))
        return
    fuzz = without if importlib.util.find_spec("atheris") is None else with_atheris
    fuzz(door, int(what), int(arguments[2]) if len(arguments) > 2 else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
