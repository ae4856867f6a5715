"""The commands that compare codecs: ``sprdiff eval`` and ``sprdiff report`` (extra: eval)."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..common.extras import needed
from ..common.fields import option
from ..errors import SprdiffError
from .fields import takes
from .files import say, tell

if TYPE_CHECKING:
    from ..evaluate.codecs.base import ImageCodec, Quality
    from ..evaluate.codecs.external import External
    from ..evaluate.run.run import EvalOutcome
    from ..evaluate.targets import Target

N = TypeVar("N", int, float)
Dir = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results that sprdiff eval has written.")]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What ``sprdiff eval`` compares."""

    folder: Path = option("Folder of images.", argument=True, metavar="FOLDER")
    out: Path = option(
        "Folder of results; an interrupted run is continued there.", flag="-o --output", metavar="DIR"
    )
    codecs: str | None = option("Names with commas; default: all codecs.", None, metavar="NAMES")
    bpp: str | None = option("Bits per pixel, with commas.", None, metavar="RATES")
    bytes: str | None = option("Bytes per picture, with commas.", None, metavar="SIZES")
    features: Path | None = option("SqueezeNet 1.1, for the feature distances.", None, metavar="FILE")
    metric_weights: Path | None = option("Published weights for LPIPS, DISTS, FID.", None, metavar="DIR")
    keep: bool = option("Keep files and decoded images.", False)
    jobs: int = option("Processes; more than cores make times wrong.", 1, flag="-j --jobs", low=1)
    limit: int | None = option("Use only the first so many images.", None, low=1)
    external_encode: Sequence[str] = option("{input} {output} {quality}.", (), metavar="NAME=COMMAND")
    external_decode: Sequence[str] = option("{input} {output}.", (), metavar="NAME=COMMAND")
    external_quality: Sequence[str] = option(
        "Qualities, from the smallest to the largest file.", (), metavar="NAME=FROM:TO[:STEP]"
    )


@takes
def eval_(given: Comparison, context: typer.Context) -> int:
    """Measure codecs on a folder of images, each at its best quality for so many bytes."""
    rates = None if given.bpp is None else _numbers(given.bpp, float, "rates are numbers")
    budgets = [] if given.bytes is None else _numbers(given.bytes, int, "sizes are whole numbers of bytes")
    external = parse_external(given.external_encode, given.external_decode, given.external_quality)
    with needed("eval", SprdiffError, "comparing codecs"):
        from ..evaluate.run.run import DEFAULT_CODECS, DEFAULT_RATES, evaluate
        from .progress import shown

    names = DEFAULT_CODECS if given.codecs is None else given.codecs.split(",")
    chosen = _parse_codecs([*names, *(codec.name for codec in external)], external)
    with shown() as progress:
        outcome = evaluate(
            given.folder,
            codecs=chosen,
            out=given.out,
            rates=rates or (() if budgets else DEFAULT_RATES),
            budgets=budgets,
            features=given.features,
            metric_weights=given.metric_weights,
            keep=given.keep,
            jobs=given.jobs,
            limit=given.limit,
            command=command_line(context),
            progress=progress,
        )
    return _tell(outcome, given.out)


def report(
    folder: Dir,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="Folder of the page; default: DIR/report."),
    ] = None,
    originals: Annotated[
        Path | None, typer.Option("--originals", metavar="DIR", help="Folder where the images are now.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="NAME", help="Codec that the others are compared with."),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=0, help="Show at most so many images.")] = 4,
    picture_rates: Annotated[
        str | None,
        typer.Option(
            "--picture-rates", metavar="RATES", help="Show them at these bits per pixel, or bytes: 1200B."
        ),
    ] = None,
) -> int:
    """Make a page and tables of the results of sprdiff eval."""
    with needed("eval", SprdiffError, "the report"):
        from ..evaluate.report import write
    rates = None if picture_rates is None else _parse_targets(picture_rates)
    page = write(folder, out, reference=reference, originals=originals, images=images, picture_rates=rates)
    tell(str(page))
    return 0


def _numbers(text: str, kind: Callable[[str], N], what: str) -> list[N]:
    """Read numbers above 0 with commas between them; `what` says in an error what they are.

    Raises:
        typer.BadParameter: the text is something else.
    """
    try:
        numbers = [kind(part) for part in text.split(",")]
        if all(math.isfinite(number) and number > 0 for number in numbers):
            return numbers
    except ValueError:
        pass
    raise typer.BadParameter(f"{what} above 0 with commas between, not {text}")


def _parse_targets(text: str) -> list[Target]:
    from ..evaluate.targets import Target

    try:
        return [Target.parse(part.strip()) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"rates are bits per pixel (0.0203) or bytes (1200B) with commas between, not {text}"
        ) from None


def parse_external(encode: Sequence[str], decode: Sequence[str], quality: Sequence[str]) -> list[External]:
    """Return the codecs of the user; each needs all three options.

    Raises:
        typer.BadParameter: an option is missing, given twice, or is no NAME=VALUE.
    """
    options = {"encode": _by_name(encode, "encode"), "decode": _by_name(decode, "decode")}
    options["quality"] = _by_name(quality, "quality")
    names = dict.fromkeys(name for given in options.values() for name in given)
    for name in names:
        for word, given in options.items():
            if name not in given:
                raise typer.BadParameter(f"codec {name} needs --external-{word} too")
    if not names:
        return []
    from ..evaluate.codecs.base import UnknownCodec
    from ..evaluate.codecs.external import External

    try:
        return [
            External(
                name, options["encode"][name], options["decode"][name], tuple(_span(options["quality"][name]))
            )
            for name in names
        ]
    except UnknownCodec as error:
        raise typer.BadParameter(str(error)) from error


def _by_name(given: Sequence[str], word: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value.strip()):
            raise typer.BadParameter(f"--external-{word} takes NAME=VALUE, not {text}")
        if name in found:
            raise typer.BadParameter(f"--external-{word} for {name} is given twice")
        found[name] = value
    return found


def _span(text: str) -> list[Quality]:
    """Read ``FROM:TO[:STEP]``; both ends are included, and the step has the sign that leads from one to
    the other."""
    try:
        first, last, step = [float(part) for part in (text + ":1").split(":")[:3]]
        if text.count(":") not in (1, 2) or not step or not all(map(math.isfinite, (first, last, step))):
            raise ValueError
    except ValueError:
        raise typer.BadParameter(f"--external-quality takes FROM:TO or FROM:TO:STEP, not {text}") from None
    count = math.floor(abs(last - first) / abs(step) + 1e-9) + 1
    if count > 10_000:
        raise typer.BadParameter(f"--external-quality {text} has {count} qualities")
    stride = math.copysign(step, last - first)
    values = [round(first + i * stride, 9) for i in range(count)]
    return [int(value) if value.is_integer() else value for value in values]


def _parse_codecs(names: Sequence[str], external: Sequence[External]) -> list[ImageCodec]:
    from ..evaluate.codecs.base import UnknownCodec
    from ..evaluate.codecs.registry import parse_codecs

    try:
        return parse_codecs([name.strip() for name in names], external=external)
    except UnknownCodec as error:
        raise typer.BadParameter(str(error)) from error


def command_line(context: typer.Context) -> str:
    """Return the command with its options, quoted for a shell."""
    words: list[str] = ["sprdiff", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        flag = [] if parameter.param_type_name == "argument" else [max(parameter.opts, key=len)]
        if value is None or value is False or value == parameter.default:
            continue
        for item in value if isinstance(value, (list, tuple)) else [value]:
            words += flag if item is True else [*flag, str(item)]
    return shlex.join(words)


def _tell(outcome: EvalOutcome, out: Path) -> int:
    """Print one line about all rows and one about each target that no codec reaches; return the exit
    status."""
    for target in outcome.unreached:
        say("error", f"no codec reaches {target} on any image")
    parts: dict[str, Any] = {"": len(outcome.rows), "unreached": outcome.count("unreached")}
    parts["failed"] = outcome.count("failed")
    total = parts.pop("")
    more = "".join(f", {count} {status}" for status, count in parts.items() if count)
    tell(f"{out}: {total} rows{more}")
    return 1 if outcome.unreached or outcome.count("failed") else 0
