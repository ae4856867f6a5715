"""The commands for training data: ``sprdiff data pack`` and ``latents`` (extra: train)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..common.extras import needed
from ..common.terminal import ProgressBar
from ..errors import TrainingError
from ..train.options import LatentsOptions
from .fields import takes
from .files import tell

app = typer.Typer(help="Photographs for training.", context_settings={"help_option_names": ["-h", "--help"]})

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@app.callback()
def _root() -> None:
    """Photographs for training."""


def parse_size(text: str) -> int:
    """Read a size in bytes: a whole number, with K, M or G for the powers of 1024.

    Raises:
        typer.BadParameter: the text is something else, or zero.
    """
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.strip().upper())
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{text} is not a size such as 256M")
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
    tile: Annotated[
        int, typer.Option("--tile", min=0, help="Cut larger ones into such tiles; 0: never.")
    ] = 768,
    workers: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Threads.")] = 4,
) -> int:
    """Pack photographs into WebDataset shards, as preset sd is trained on."""
    size = parse_size(shard_size)
    with needed("train", TrainingError, "packing"):
        from ..train.data.pack import Packing
        from ..train.data.pack import pack as run
    with ProgressBar("photographs") as bar:
        done = run(folder, out, Packing(size, short_side, min_side, tile), workers=workers, advance=bar.show)
    left = f", {done.left_out} left out" if done.left_out else ""
    tell(f"{out}: {done.photos} files in {done.shards} shards{left}")
    return 0


@app.command()
@takes
def latents(options: LatentsOptions) -> int:
    """Code crops of photographs for the stages vae and flow."""
    with needed("train", TrainingError, "coding latents"):
        from ..train.latents.run import run_latents
    with ProgressBar("crops") as bar:
        done = run_latents(options, bar.show)
    vae = "with the VAE's latent" if done.vae else "without a VAE's latent"
    tell(f"{options.out}: {done.crops} crops in {done.precision}, {vae}")
    return 0
