"""The commands on training data: ``sprdiff data pack`` and ``latents`` (they need the extra: train)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..errors import TrainingError
from .files import on_terminal, tell
from .options import Threads

app = typer.Typer(help="Photographs for training.", context_settings={"help_option_names": ["-h", "--help"]})

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@app.callback()
def _root() -> None:
    """Photographs for training."""


def parse_size(text: str) -> int:
    """Bytes: a whole number, with K, M or G for the powers of 1024.

    Raises:
        typer.BadParameter: something else, or nothing.
    """
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{text} is no size: 256M, say")
    return int(match[1]) * _UNITS[match[2]]


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photographs; subfolders are searched.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the shards; goes on there.")],
    shard_size: Annotated[str, typer.Option("--shard-size", help="Bytes of a shard, about.")] = "256M",
    short_side: Annotated[
        int, typer.Option("--short-side", min=0, help="Reduce larger photographs to this; 0: never.")
    ] = 1536,
    min_side: Annotated[int, typer.Option("--min-side", min=1, help="Leave out smaller ones.")] = 512,
    tile: Annotated[int, typer.Option("--tile", min=0, help="Cut larger ones into such tiles; 0: never.")] = 768,
    workers: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Threads.")] = 4,
) -> int:
    """Pack photographs into WebDataset shards, as preset sd is trained on."""
    size = parse_size(shard_size)
    try:
        from ..train.data.pack import Packing
        from ..train.data.pack import pack as run
    except ImportError as error:
        if (error.name or "").startswith("sprdiff"):
            raise
        raise TrainingError(f"packing needs {error.name}: pip install 'sprdiff[train]'") from error
    with _bar("photographs") as advance:
        done = run(folder, out, Packing(size, short_side, min_side, tile), workers=workers, advance=advance)
    left = f", {done.left_out} left out" if done.left_out else ""
    tell(f"{out}: {done.photos} files in {done.shards} shards{left}")
    return 0


@app.command()
def latents(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the latents; goes on there.")],
    init: Annotated[list[Path], typer.Option("--init", help="Checkpoint of the codec, of the VAE; may repeat.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Folder or .tar shard of photographs; may repeat.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Size of the model.")] = "tiny",
    count: Annotated[int, typer.Option("--count", min=1, help="Crops, of 448 pixels.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    vae_only: Annotated[bool, typer.Option("--vae-only", help="Only compute the VAE's latent again.")] = False,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Leave out names with this prefix.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for decoded photographs.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="auto (the faster one), fp32 or bf16.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    threads: Threads = None,
) -> int:
    """Code crops of photographs for the stages vae and flow."""
    options = dict(locals())
    try:
        from ..train import run_latents
    except ImportError as error:
        if (error.name or "").startswith("sprdiff"):
            raise
        raise TrainingError(f"latents need {error.name}: pip install 'sprdiff[train]'") from error
    given = {k: v for k, v in options.items() if v is not None}
    with _bar("crops") as advance:
        done = run_latents(**given, advance=advance)
    vae = "with the VAE's latent" if done.vae else "without a VAE's latent"
    tell(f"{out}: {done.crops} crops in {done.precision}, {vae}")
    return 0


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error on a terminal, else nothing."""
    if not on_terminal():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)
