"""The command line, in the manner of cjxl and djxl. Commands import what they need when they run.

Exit status: 0; 1 something failed (one line on standard error each); 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__, cli_batch, cli_data, cli_eval, cli_models, cli_serve, cli_train
from .cli_files import DEBUG, Job, check_job, explain, one_line, plan, run_jobs, say
from .cli_options import (
    MAX_PIXELS,
    SCALES,
    Bpp,
    Force,
    MaxBytes,
    MaxPixels,
    Out,
    Quality,
    Quiet,
    Threads,
    Weights,
    between,
    check_background,
    check_scale,
    check_targets,
)
from .files import write_atomic
from .progress import Report

if TYPE_CHECKING:
    from .codec import Codec
    from .fileinfo import FileInfo

INTERRUPTED = 130

app = typer.Typer(
    name="sprdiff",
    help="Photographs below 0.03 bits per pixel. Details are invented: not for evidence, faces or text.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(f"sprdiff {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def encode(
    files: Annotated[list[str], typer.Argument(metavar="IN [OUT]", help="Picture and .sprd file; - is stdin.")],
    quality: Quality = None,
    bpp: Bpp = None,
    max_bytes: MaxBytes = None,
    scale: Annotated[
        str,
        typer.Option("--scale", callback=check_scale, help="Code it smaller by: " + ", ".join(SCALES) + "."),
    ] = "auto",
    background: Annotated[
        str, typer.Option("--background", callback=check_background, help="Colour under transparent pixels.")
    ] = "white",
    effort: Annotated[
        int, typer.Option("--effort", min=0, max=9, help="Search for a better file: 0 none, 9 about a minute.")
    ] = 0,
    output: Out = None,
    weights: Weights = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Encode pictures to .sprd files; with no target stated to 0.02 bits per pixel."""
    check_targets(quality, bpp, max_bytes)
    jobs = _plan_encode(files, output)
    codec = _lazy_codec(weights, threads, max_pixels)

    def work(job: Job, report: Report) -> None:
        from .image import open_rgb

        picture = open_rgb(job.source, background=background, max_pixels=max_pixels)
        if picture.dropped:
            say("warning", f"{job.source}: dropped {', '.join(picture.dropped)}")
        data = codec().encode(
            picture, quality=quality, bpp=bpp, max_bytes=max_bytes, scale=scale, effort=effort, report=report
        )
        write_atomic(job.target, data, force=force)
        height, width = picture.pixels.shape[:2]
        bits = len(data) * 8 / (height * width)
        _report(job, f"{len(data)} bytes, {bits:.4f} bpp, {width} x {height} pixels", quiet=quiet)

    return _run(jobs, work, force=force, slow=effort > 0)


@app.command()
def decode(
    files: Annotated[list[str], typer.Argument(metavar="IN [OUT]", help=".sprd file and picture; - is stdin.")],
    realism: Annotated[
        float,
        typer.Option("--realism", callback=between(0, 1), help="0 faithful and blurred, 1 sharp, partly invented."),
    ] = 1.0,
    steps: Annotated[int, typer.Option("--steps", min=1, max=1000, help="Steps of the denoiser.")] = 1,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the noise that texture is made of.")
    ] = 0,
    output: Out = None,
    weights: Weights = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> int:
    """Decode .sprd files to PNG, or to the format that the output's extension names."""
    jobs = plan(files, output, ".png")
    codec = _lazy_codec(weights, threads, max_pixels)

    def work(job: Job, _: Report) -> None:
        from .fileinfo import info as file_info
        from .fileinfo import read_sprd
        from .image import output_format, save_image

        output_format(job.target)  # an unknown extension fails before any work
        data = read_sprd(job.source, max_pixels)
        about = file_info(data, weights=weights, max_pixels=max_pixels)  # nor are networks loaded for a bad file
        image = codec().decode(data, realism=realism, steps=steps, seed=seed)
        text = {"version": __version__, "model": about.model, "realism": realism, "bytes": len(data)}
        save_image(job.target, image, {"sprdiff": json.dumps(text)}, force=force)
        _report(job, f"{image.width} x {image.height} pixels", quiet=quiet)

    return _run(jobs, work, force=force)


@app.command()
def info(
    files: Annotated[list[str] | None, typer.Argument(metavar="[IN]...", help=".sprd files; none: the model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    weights: Weights = None,
) -> int:
    """Say what files hold, or without files which model comes with this installation."""
    from .cli_info import file_lines, model_lines, to_json
    from .fileinfo import info as file_info
    from .fileinfo import model_info, read_sprd

    if not files:
        model = model_info(weights)
        typer.echo(to_json(model) if as_json else model_lines(model))
        return 0
    found: list[FileInfo] = []

    def work(index: int, _: Report) -> None:
        about = file_info(read_sprd(files[index]), weights=weights)
        found.append(about)
        if not as_json:
            typer.echo(file_lines(one_line(files[index]), about))

    status = run_jobs(files, work)
    if as_json and (found or len(files) > 1):
        typer.echo(to_json(found[0] if len(files) == 1 else found))
    return status


app.command("batch")(cli_batch.batch)
app.command("train")(cli_train.train)
app.add_typer(cli_data.app, name="data")
app.command("eval")(cli_eval.eval_)
app.command("report")(cli_eval.report)
app.command("models")(cli_models.models)
app.command("serve")(cli_serve.serve)


def _plan_encode(files: Sequence[str], output: str | None) -> list[Job]:
    jobs = plan(files, output, ".sprd")
    from .image import FORMATS

    for job in jobs:
        if Path(job.target).suffix.lower() in FORMATS:
            raise typer.BadParameter(f"{job.target} is no name for an .sprd file; several inputs need -o DIR")
    return jobs


def _lazy_codec(weights: Path | None, threads: int | None, max_pixels: int) -> Callable[[], Codec]:
    """The codec of a command, made when the first file needs it."""

    @cache
    def make() -> Codec:
        from .codec import Codec

        return Codec(weights=weights, threads=threads, max_pixels=max_pixels)

    return make


def _run(jobs: Sequence[Job], work: Callable[[Job, Report], None], *, force: bool, slow: bool = False) -> int:
    def checked(index: int, report: Report) -> None:
        check_job(jobs[index], force=force)
        work(jobs[index], report)

    return run_jobs([job.source for job in jobs], checked, slow=slow)


def _report(job: Job, text: str, *, quiet: bool) -> None:
    if not quiet and job.target != "-":
        typer.echo(one_line(f"{job.source} -> {job.target}: {text}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; no traceback unless SPRDIFF_DEBUG=1."""
    command = typer.main.get_command(app)
    try:
        with warnings.catch_warnings():
            # What Pillow mutters about odd metadata is no use on a terminal.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            given = None if arguments is None else list(arguments)
            status: Any = command.main(args=given, prog_name="sprdiff", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:  # typer itself exits on a broken pipe
        _discard_output()
        return int(error.code or 0) if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
    except Exception as error:
        return _fail(error)


def _fail(error: Exception) -> int:
    """Print the error's line; wrong usage is known by the method that click's errors have."""
    if hasattr(error, "format_message"):
        say("error", f"{error.format_message().rstrip('.')}; see sprdiff --help")
        return int(getattr(error, "exit_code", 2))
    if os.environ.get(DEBUG) == "1":
        raise error
    say("error", explain(error))
    return 1


def _discard_output() -> None:
    """The reader has gone: keep the interpreter from complaining when it flushes at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
