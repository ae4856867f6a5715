"""Options that commands share, and the checks of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ImageError


@contextmanager
def as_usage() -> Iterator[None]:
    """Turn a wrong value of an option into a usage error, which exits with status 2.

    Raises:
        typer.BadParameter: an options object refused a value inside the ``with`` block.
    """
    try:
        yield
    except (ValueError, ImageError) as error:
        raise typer.BadParameter(str(error)) from error


def between(low: float, high: float, *, open_low: bool = False) -> Callable[[float | None], float | None]:
    """Return a check that a number is in a range; NaN and infinity never are."""

    def check(value: float | None) -> float | None:
        if value is None:
            return None
        if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
            above = f"above {low:g}" if open_low else f"from {low:g}"
            raise typer.BadParameter(f"{value:g} is not {above}{'' if math.isinf(high) else f' to {high:g}'}")
        return value

    return check


Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite outputs that exist.")]
Out = Annotated[str | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the outputs.")]
Weights = Annotated[Path | None, typer.Option("--weights", metavar="DIR", help="Use other weights.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]
Precision = Annotated[
    str, typer.Option("--precision", help="Preset sd: auto, fp32, tf32, fp16 or bf16; auto is fp32 on a CPU.")
]
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse larger pictures.")]
Partial = Annotated[
    bool, typer.Option("--partial", help="Take files that were cut off after their header, too.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but warnings and errors.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse damaged pictures even if they can be read.")]
Quality = Annotated[float | None, typer.Option("-q", "--quality", callback=between(0, 100), help="0 to 100.")]
Bpp = Annotated[
    float | None,
    typer.Option("--bpp", callback=between(0, math.inf, open_low=True), help="At most so many bits a pixel."),
]
MaxBytes = Annotated[int | None, typer.Option("--max-bytes", min=1, help="At most so many bytes a picture.")]
