"""The work of the commands around the codec: output names, one file after another, lines on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import typer

from ..common import messages
from ..common.files import STDIO, as_stdio, check_output, describe, descriptor, is_special, read_bytes
from ..common.messages import one_line
from ..common.progress import Report
from ..common.terminal import ProgressBar
from ..errors import BitstreamError, OutputError, WeightsError
from ..options import CodecOptions

if TYPE_CHECKING:
    from ..codec import Codec

_NAMES = """
    3fr apng arw avci avif avifs blp bmp bw cr2 cr3 crw cur dcx dds dib dng eps erf exr fit fits flc fli
    gif hdr heic heics heif heifs hif icns ico iim im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx jxl jxr
    mng mpo mrw msp nef nrw orf pbm pcd pct pcx pef pfm pgm pict png pnm ppm ps psd qoi raf ras raw rgb
    rgba rw2 sgi spi sprd srw svg tga tif tiff wbmp webp wmf x3f xbm xcf xpm
"""
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())
"""Extensions that are replaced by that of another format; everything else belongs to the name."""
DEBUG = "SPRDIFF_DEBUG"
"""An environment variable: 1 shows tracebacks."""


@dataclass(frozen=True)
class Job:
    """An input and its output; ``-`` is standard input or output."""

    source: str
    target: str


def plan(files: Sequence[str], out: str | None, extension: str) -> list[Job]:
    """Pair inputs with outputs: ``IN``, ``IN OUT``, ``IN -o OUT`` or ``IN... -o DIR``.

    Args:
        extension: the extension of outputs without a name, with its dot.

    Raises:
        typer.BadParameter: the names do not fit together (exit status 2).
        OutputError: the folder for the outputs cannot be created.
    """
    if "" in files or out == "":
        raise typer.BadParameter("a file name is empty")
    sources, out = [as_stdio(name, 0) for name in files], None if out is None else as_stdio(out, 1)
    folder = None
    if out is None:
        if len(files) > 2:
            raise typer.BadParameter("several inputs need -o DIR")
        target = as_stdio(files[1], 1) if len(files) == 2 else _renamed(sources[0], extension)
        jobs = [Job(sources[0], target)]
    elif len(files) == 1 and _is_file_name(out):
        jobs = [Job(sources[0], out)]
    else:
        jobs, folder = _into_folder(sources, out, extension), out
    _check_apart(jobs)
    if any(job.target == STDIO for job in jobs):
        if sys.stdout is None:
            raise OutputError("standard output is closed")
        if sys.stdout.isatty():
            raise typer.BadParameter("will not write binary data to a terminal")
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {describe(error)}") from error
    return jobs


def _check_apart(jobs: Sequence[Job]) -> None:
    made: dict[str, str] = {}
    for job in jobs:
        if job.target in made:
            raise typer.BadParameter(f"{made[job.target]} and {job.source} would both become {job.target}")
        made[job.target] = job.source


def _renamed(source: str, extension: str) -> str:
    """Return the name of an output beside its input; only the extension of a format is replaced
    (``IMG.2024.05`` has none)."""
    if source == STDIO or descriptor(source) is not None:
        return STDIO
    path = Path(source)
    if not path.name:  # names such as . or / fail when they are read
        return source + extension
    known = path.suffix.lower() in EXTENSIONS
    return str(path.with_name((path.stem if known else path.name) + extension))


def _is_file_name(out: str) -> bool:
    """Whether ``-o`` names a file and not a folder: it has an extension or is a device or pipe."""
    if out == STDIO or is_special(out):
        return True
    return not out.endswith(("/", os.sep)) and not Path(out).is_dir() and Path(out).suffix != ""


def _into_folder(files: Sequence[str], out: str, extension: str) -> list[Job]:
    for name in files:
        if name == STDIO or descriptor(name) is not None:
            raise typer.BadParameter("standard input (-) cannot go into a folder, give its output a name")
    if _is_file_name(out) and not Path(out).is_dir() and (out == STDIO or Path(out).exists()):
        raise typer.BadParameter(f"several inputs need -o DIR, {out} is not a folder")
    return [Job(name, str(Path(out) / Path(_renamed(name, extension)).name)) for name in files]


def check_job(job: Job, *, force: bool) -> None:
    """Refuse an output before any work is done, as `check_output` does; an input is never overwritten."""
    same = os.path.exists(job.source) and os.path.exists(job.target) and not is_special(job.target)
    if same and os.path.samefile(job.source, job.target):
        raise OutputError(f"{job.target} is the input itself")
    check_output(job.target, force=force)


def run_jobs(names: Sequence[str], work: Callable[[int, Report], None], *, slow: bool = False) -> int:
    """Do ``work(i, report)`` for every input; print failures and go on. Return the exit status, 0 or 1.

    Args:
        work: the work; it may call ``report`` with the fraction that is done.
        slow: whether a single input takes long enough for a progress bar.
    """
    status = 0
    with ProgressBar("files", len(names), active=slow or len(names) > 1) as bar:
        for index, name in enumerate(names):
            try:
                work(index, lambda done, before=index: bar.show(before + done))  # type: ignore[misc]
            except (BrokenPipeError, WeightsError):
                raise  # no other file could be written either
            except Exception as error:
                if os.environ.get(DEBUG) == "1":
                    raise
                text = explain(error)
                say("error", text if name in text or len(names) == 1 else f"{name}: {text}")
                status = 1
            bar.show(index + 1)
    return status


def lazy_codec(options: CodecOptions) -> Callable[[], Codec]:
    """Return a function that makes the codec of a command when it is called first."""

    @cache
    def make() -> Codec:
        from ..codec import Codec

        return Codec.from_options(options)

    return make


def explain(error: BaseException) -> str:
    """Return one line about an error; an unexpected one comes with a hint."""
    text = messages.explain(error)
    return f"{text} (a bug; {DEBUG}=1 shows where)" if text.startswith("unexpected ") else text


def say(kind: str, text: str) -> None:
    """Print one line on standard error: ``sprdiff: error: ...`` or ``sprdiff: warning: ...``."""
    if sys.stderr is not None:  # it is None if the caller has closed it
        with suppress(OSError):
            sys.stderr.write(f"sprdiff: {kind}: {one_line(text)}\n")


def tell(text: str) -> None:
    """Print a line on standard output.

    Raises:
        OutputError: it is closed or cannot be written.
        BrokenPipeError: its reader has gone.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {describe(error)}") from error


def read_given(name: str, networks: CodecOptions) -> tuple[bytes, bool]:
    """Return an ``.sprd`` file or a picture, still coded, and whether it is the former.

    An ``.sprd`` file that is damaged or cut off is returned with a warning: its beginning may be sent, too.

    Raises:
        BitstreamError: it cannot be read, or the header of the ``.sprd`` file is invalid.
        ImageError: it is neither, or longer than a picture of so many pixels may be.
        WeightsError: the given folder of weights cannot be read.
    """
    from ..fileinfo import is_damaged
    from ..format.container import MAGIC, read_file
    from ..imageio.kinds import HEAD
    from ..imageio.open import read_whole

    coded = False

    def read(stream: BinaryIO) -> bytes:
        nonlocal coded
        head = stream.read(HEAD)
        coded = head[: len(MAGIC)] == MAGIC
        if not coded:
            return read_whole(stream, name, networks.max_pixels, head)
        return read_file(stream, head=head)

    data = read_bytes(name, BitstreamError, read)
    if coded and is_damaged(data, networks.weights):
        say("warning", f"{name} is damaged or cut off: its check does not match its contents")
    return data, coded
