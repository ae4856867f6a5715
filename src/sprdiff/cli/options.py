"""Options that commands share, and the checks of their values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common.fields import option
from ..errors import ImageError
from ..limits import MAX_PIXELS
from ..options import AUTO, CodecOptions, EncodeOptions


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


@dataclass(frozen=True)
class TargetOptions:
    """What a file may cost; at most one of the three may be given."""

    quality: float | None = option("0 to 100.", None, flag="-q --quality")
    bpp: float | None = option("At most so many bits a pixel.", None)
    max_bytes: int | None = option("At most so many bytes a picture.", None, low=1)

    def encoding(self, **others: Any) -> EncodeOptions:
        """Return the options of encoding.

        Raises:
            typer.BadParameter: a value is out of its range, or two targets are given.
        """
        with as_usage():
            return EncodeOptions(**asdict(self), **others)


@dataclass(frozen=True)
class NetworkOptions:
    """Which networks a command runs, and within which limits."""

    weights: Path | None = option("Use other weights.", None, metavar="DIR")
    max_pixels: int = option("Refuse larger pictures.", MAX_PIXELS, low=1)
    threads: int | None = option("CPU threads.", None, low=1)
    precision: str = option("Preset sd: auto, fp32, tf32, fp16 or bf16; auto is fp32 on a CPU.", AUTO)

    @property
    def codec(self) -> CodecOptions:
        """The options of the codec.

        Raises:
            typer.BadParameter: there is no such precision.
        """
        with as_usage():
            return CodecOptions(self.weights, self.threads, self.max_pixels, self.precision)


@dataclass(frozen=True)
class WritingOptions:
    """How a command treats its outputs, and how much it says about them."""

    force: bool = option("Overwrite outputs that exist.", False, flag="-f --force")
    quiet: bool = option("Say nothing but warnings and errors.", False)


Out = Annotated[str | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the outputs.")]
Weights = Annotated[Path | None, typer.Option("--weights", metavar="DIR", help="Use other weights.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse larger pictures.")]
Partial = Annotated[
    bool, typer.Option("--partial", help="Take files that were cut off after their header, too.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse damaged pictures even if they can be read.")]
