"""The command ``sprdiff train`` (extra: train; preset sd also needs the extra: sd)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.extras import needed
from ..common.files import read_object
from ..errors import TrainingError
from ..train.options import TrainOptions
from .fields import takes


@takes
def train(
    options: TrainOptions,
    card: Annotated[
        Path | None, typer.Option("--card", help="JSON file of figures to ship (export).")
    ] = None,
) -> int:
    """Train one stage of a preset (needs the extra: train)."""
    with needed("train", TrainingError, "training"):
        from ..train.export.run import run_export
        from ..train.run import run_stage
    if options.stage != "export":
        run_stage(options)
        return 0
    run_export(
        options.init,
        options.out,
        data=options.data,
        preset=options.preset,
        exclude=options.exclude,
        cache=options.cache,
        card=None if card is None else read_object(card, TrainingError),
        sd=options.sd,
    )
    return 0
