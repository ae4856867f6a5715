"""``sprdiff export``: the part of the weights that a machine needs which only encodes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..common.files import check_output, describe, whole_folder
from ..errors import OutputError, WeightsError
from .fields import takes
from .options import Weights, WritingOptions

SENDS = ("manifest.json", "entropy.npz", "encoder.npz", "encoder.onnx")
TEXTS = ("LICENSE-weights", "MODEL_CARD.md")
"""Files that are copied if they exist: a licence belongs to its weights."""


@takes
def export(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to make.")],
    encoder: Annotated[
        bool, typer.Option("--encoder", help="Copy the encoder alone, for machines that only send.")
    ] = False,
    weights: Weights = None,
    *,
    writing: WritingOptions,
) -> int:
    """Copy the part of the weights that a machine needs; so far --encoder is the only part."""
    from ..fileinfo import model_info

    if not encoder:
        raise typer.BadParameter("say what to export: --encoder")
    source = Path(model_info(weights).folder)
    if missing := [name for name in SENDS if not (source / name).is_file()]:
        raise WeightsError(f"{source} has no encoder that could be copied alone: it lacks {missing[0]}")
    if output.is_dir() and not writing.force:
        raise OutputError(f"{output} already exists; only -f (force) replaces it")
    if output.is_dir() and not {path.name for path in output.iterdir()} <= {*SENDS, *TEXTS}:
        raise OutputError(f"{output} holds other files, which an export would take with it")
    if not output.is_dir():
        check_output(output, force=writing.force)
    _copy(source, output)
    if not writing.quiet:
        size = sum(path.stat().st_size for path in output.iterdir())
        typer.echo(f"{output}: {size / 1e6:.1f} MB, encodes with --weights {output}")
    return 0


def _copy(source: Path, output: Path) -> None:
    try:
        with whole_folder(output) as partial:
            for name in (*SENDS, *(text for text in TEXTS if (source / text).exists())):
                shutil.copyfile(source / name, partial / name)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {describe(error)}") from error
