"""The command line, in the style of cjxl and djxl. Commands import what they need when they run.

The exit status is 0 for success, 1 if something failed (with one line on standard error for each failure), 2
for wrong usage, and 130 after Ctrl+C.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..common.exits import INTERRUPTED
from ..common.files import describe, write_atomic
from ..common.messages import one_line
from ..common.progress import Report
from ..limits import MAX_STEPS
from ..options import AUTO, MAX_EFFORT, SCALE_NAMES, DecodeOptions
from .batch import batch
from .data import app as data_app
from .eval import eval_, report
from .export import export
from .fields import takes
from .files import DEBUG, Job, check_job, explain, lazy_codec, plan, run_jobs, say, tell
from .models import models
from .options import NetworkOptions, Out, Partial, Strict, TargetOptions, Weights, WritingOptions, as_usage
from .packets import join, packets
from .serve import serve
from .train import train
from .viewer import link, qr, viewer

if TYPE_CHECKING:
    from ..fileinfo import FileInfo

_UNWRITABLE = frozenset({errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG})
READER_GONE = 141
"""The exit status if the reader of standard output has gone: 128 plus the number of SIGPIPE, as in shells."""

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
        tell(f"sprdiff {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        tell(context.get_help())


@app.command()
@takes
def encode(
    files: Annotated[
        list[str], typer.Argument(metavar="IN [OUT]", help="Picture and .sprd file; - is stdin.")
    ],
    target: TargetOptions,
    scale: Annotated[
        str, typer.Option("--scale", help=f"Code it smaller by: {', '.join(SCALE_NAMES)}.")
    ] = AUTO,
    background: Annotated[
        str, typer.Option("--background", help="Colour under transparent pixels.")
    ] = "white",
    effort: Annotated[
        int,
        typer.Option(
            "--effort", min=0, max=MAX_EFFORT, help="Search for a better file: 0 none, 9 about a minute."
        ),
    ] = 0,
    strict: Strict = False,
    output: Out = None,
    *,
    networks: NetworkOptions,
    writing: WritingOptions,
) -> int:
    """Encode pictures to .sprd files; with no target stated to 0.02 bits per pixel."""
    options = target.encoding(scale=scale, background=background, effort=effort)
    jobs = _plan_encode(files, output)
    codec = lazy_codec(networks.codec)

    def work(job: Job, report: Report) -> None:
        from ..imageio.open import open_rgb

        picture = open_rgb(job.source, background=background, max_pixels=networks.max_pixels, strict=strict)
        if picture.warning:
            say("warning", f"{job.source}: {picture.warning}")
        data = codec().encode_with(picture, options, report)
        write_atomic(job.target, data, force=writing.force)
        height, width = picture.pixels.shape[:2]
        bits = len(data) * 8 / (height * width)
        _report(job, f"{len(data)} bytes, {bits:.4f} bpp, {width} x {height} pixels", writing)

    return _run(jobs, work, force=writing.force, slow=effort > 0)


@app.command()
@takes
def decode(
    files: Annotated[
        list[str], typer.Argument(metavar="IN [OUT]", help=".sprd file and picture; - is stdin.")
    ],
    realism: Annotated[
        float | None, typer.Option("--realism", help="0 faithful and blurred, 1 sharp, partly invented.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, max=MAX_STEPS, help="Evaluations of the generative network."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the noise that detail is made of.")
    ] = 0,
    partial: Partial = False,
    output: Out = None,
    *,
    networks: NetworkOptions,
    writing: WritingOptions,
) -> int:
    """Decode .sprd files to PNG, or to the format that the output's extension names."""
    with as_usage():
        options = DecodeOptions(realism, steps, seed, partial)
    jobs = plan(files, output, ".png")
    codec = lazy_codec(networks.codec)

    def work(job: Job, _: Report) -> None:
        from ..fileinfo import read_sprd
        from ..imageio.save import output_format, save_image
        from ..loading import stride_of
        from .info import held

        output_format(job.target)  # an unknown extension fails before any work
        data = read_sprd(job.source, networks.max_pixels, stride_of(networks.weights))
        decoded = codec().decode_with(data, options)
        save_image(job.target, decoded.image, decoded.text, force=writing.force)
        if not decoded.image.info.get("whole", True):
            say("warning", f"{job.source}: {held(decoded.known)}")
        _report(job, f"{decoded.image.width} x {decoded.image.height} pixels", writing)

    return _run(jobs, work, force=writing.force)


@app.command()
def info(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[IN]...", help=".sprd files; default: describe the model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    partial: Partial = False,
    weights: Weights = None,
) -> int:
    """Say what files hold, or without files which model comes with this installation."""
    from ..fileinfo import info as file_info
    from ..fileinfo import model_info, read_sprd
    from .info import file_lines, model_lines, to_json

    if not files:
        model = model_info(weights)
        tell(to_json(model) if as_json else model_lines(model))
        return 0
    found: list[FileInfo] = []

    def work(index: int, _: Report) -> None:
        about = file_info(read_sprd(files[index]), weights=weights, partial=partial)
        found.append(about)
        if not as_json:
            tell(file_lines(one_line(files[index]), about))

    status = run_jobs(files, work)
    if as_json and (found or len(files) > 1):
        tell(to_json(found[0] if len(files) == 1 else found))
    return status


app.command("packets")(packets)
app.command("join")(join)
app.command("batch")(batch)
app.command("train")(train)
app.add_typer(data_app, name="data")
app.command("eval")(eval_)
app.command("report")(report)
app.command("models")(models)
app.command("export")(export)
app.command("serve")(serve)
app.command("link")(link)
app.command("qr")(qr)
app.command("viewer")(viewer)


def _plan_encode(files: Sequence[str], output: str | None) -> list[Job]:
    jobs = plan(files, output, ".sprd")
    from ..imageio.save import FORMATS

    for job in jobs:
        if Path(job.target).suffix.lower() in FORMATS:
            raise typer.BadParameter(f"{job.target} is no name for an .sprd file; several inputs need -o DIR")
    return jobs


def _run(jobs: Sequence[Job], work: Callable[[Job, Report], None], *, force: bool, slow: bool = False) -> int:
    def checked(index: int, report: Report) -> None:
        check_job(jobs[index], force=force)
        work(jobs[index], report)

    return run_jobs([job.source for job in jobs], checked, slow=slow)


def _report(job: Job, text: str, writing: WritingOptions) -> None:
    if not writing.quiet and job.target != "-":
        tell(one_line(f"{job.source} -> {job.target}: {text}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; a traceback is shown only with SPRDIFF_DEBUG=1."""
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal cannot show must not be an error
        sys.stdout.reconfigure(errors="backslashreplace")
    return _flushed(_run_command(arguments))


def _run_command(arguments: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    try:
        with warnings.catch_warnings():
            # Pillow's warnings about odd metadata are of no use on a terminal.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            given = None if arguments is None else list(arguments)
            status: Any = command.main(args=given, prog_name="sprdiff", standalone_mode=False)
        if status == INTERRUPTED:  # typer reports Ctrl+C like this
            say("error", "interrupted")
        return int(status or 0)
    except (KeyboardInterrupt, typer.Abort):
        say("error", "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return READER_GONE
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer raises this to exit
            return READER_GONE
        return error.code if isinstance(error.code, int) else 1
    except OSError as error:
        if error.filename is None and error.errno in _UNWRITABLE:  # typer writes the help
            say("error", f"standard output cannot be written: {describe(error)}")
            return 1
        return _fail(error)
    except Exception as error:
        return _fail(error)


def _flushed(status: int) -> int:
    """Flush the standard streams and return the exit status; what fails here must not be tried again at
    exit."""
    if sys.stdout is None:
        return status
    try:
        if status != READER_GONE:
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        status = READER_GONE
    except OSError as error:
        if status == 0:
            say("error", f"standard output cannot be written: {describe(error)}")
            status = 1
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _fail(error: Exception) -> int:
    """Print the line of an error and return its exit status; click's usage errors are known by a method."""
    if hasattr(error, "format_message"):
        say("error", f"{error.format_message().rstrip('.')}; see sprdiff --help")
        return int(getattr(error, "exit_code", 2))
    if os.environ.get(DEBUG) == "1":
        raise error
    say("error", explain(error))
    return 1
