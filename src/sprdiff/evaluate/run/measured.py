"""Time and memory of one encode and one decode, in a fresh process that does nothing else.

::

    parent ─► codec, pixels, setting ─► child: a small picture both ways (loads libraries), then the real one
       └─ watches what the child has started   ◄─ seconds, bytes, its own peak of memory
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from ..codecs.base import CodecError, ImageCodec, Scalar, Setting, size_of
from ..metrics.distortion import Bytes

TIMEOUT = 600.0
"""How long everything in the process may take, in seconds."""

_PERIOD = 0.01
"""Seconds between two measurements of the processes that a codec starts; the system tracks the peak of our
own."""
_WARM_UP = 64
_GRACE = 1.0


@dataclass(frozen=True)
class _Report:
    encode_s: float
    decode_s: float
    size: int
    peak: int


class MeasurementError(CodecError):
    """The measuring process crashed, took too long, or made another file than before."""


@dataclass(frozen=True)
class Measured:
    """The costs of one encode and one decode.

    Attributes:
        encode_s, decode_s: seconds of processor time of the process and of those that it starts, with
            resizing, but without loading libraries and networks. Every codec runs on one thread here, so this
            is its time on an idle core, whatever else the machine does meanwhile.
        peak_bytes: the peak of resident memory of the whole process (interpreter and libraries included) and
            of the processes that it starts; None if the system has no ``/proc``.
    """

    encode_s: float
    decode_s: float
    peak_bytes: int | None


def measure(
    codec: ImageCodec,
    pixels: Bytes,
    setting: Mapping[str, Scalar],
    *,
    expected_bytes: int | None = None,
    timeout: float = TIMEOUT,
) -> Measured:
    """Measure one encode and one decode, at a setting that `search.best_at` chose, in a fresh process.

    The process is spawned: a script that calls this needs the usual ``if __name__ == "__main__"``.

    Args:
        codec: the codec.
        pixels: the picture, uint8 RGB [H, W, 3].
        setting: the setting, see `search.Choice`.
        expected_bytes: the size that the file must have; None: any.
        timeout: how long everything may take, in seconds.

    Raises:
        MeasurementError: the codec failed, the process crashed or took too long, or the file has another
            size.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, codec, np.ascontiguousarray(pixels), dict(setting)))
    process.start()
    theirs.close()  # otherwise the end of the child would go unnoticed
    try:
        report, others = _watched(process, ours, timeout)
    except (EOFError, OSError):
        process.join(1.0)
        raise MeasurementError(
            f"{codec.name}: the measuring process ended with status {process.exitcode}"
        ) from None
    finally:
        _end(process)
        ours.close()
    if isinstance(report, str):
        raise MeasurementError(report)
    if report is None:
        raise MeasurementError(f"{codec.name}: the measurement took more than {timeout:g} s")
    if expected_bytes is not None and report.size != expected_bytes:
        raise MeasurementError(
            f"{codec.name} made {report.size} bytes where it had made {expected_bytes} before"
        )
    return Measured(report.encode_s, report.decode_s, report.peak + others if report.peak else None)


def _work(pipe: Connection, codec: ImageCodec, pixels: Bytes, setting: Setting) -> None:
    """Measure in the child process, and send the report, or the message of an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal, too, and stops this process
    try:
        pipe.send(_timed(codec, pixels, setting))
    except Exception as error:  # the parent reports whatever a library raises
        pipe.send(
            str(error) if isinstance(error, CodecError) else f"{codec.name}: {type(error).__name__}: {error}"
        )


def _timed(codec: ImageCodec, pixels: Bytes, setting: Setting) -> _Report:
    small = pixels[:_WARM_UP, :_WARM_UP]
    plain = setting | {name: 1 for name in ("factor", "scale") if name in setting}
    codec.decode_at(codec.encode_at(small, plain), plain, size_of(small))
    start = _processor_seconds()
    data = codec.encode_at(pixels, setting)
    middle = _processor_seconds()
    codec.decode_at(data, setting, size_of(pixels))
    return _Report(middle - start, _processor_seconds() - middle, len(data), _peak(os.getpid()))


def _processor_seconds() -> float:
    """Return the processor time of this process and of the processes that it started and that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _watched(process: BaseProcess, pipe: Connection, timeout: float) -> tuple[_Report | str | None, int]:
    """Return the child's report (None if it takes too long), and the peak memory of the processes that it
    started.

    Raises:
        EOFError: the child ended without a report.
    """
    assert process.pid is not None
    deadline, others = time.monotonic() + timeout, 0
    while not pipe.poll(_PERIOD):
        if time.monotonic() > deadline:
            return None, others
        others = max(others, sum(map(_peak, _descendants(process.pid))))
    report: _Report | str = pipe.recv()
    return report, others


def _peak(pid: int) -> int:
    """Return the peak of a process's resident memory in bytes; 0 if it is unknown or the process has
    ended."""
    # Not from getrusage: a new process inherits the figure of its parent.
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process and its children have started; an empty list if there is no
    ``/proc``."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name in brackets may contain anything; state and parent come after it.
            parents[int(path.parent.name)] = int(
                path.read_text("utf-8", "replace").rpartition(")")[2].split()[1]
            )
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def _end(process: BaseProcess) -> None:
    """Wait for a child that has reported; kill one that has not, and everything that it has started."""
    process.join(_GRACE)
    if process.is_alive() and process.pid is not None:
        descendants = _descendants(process.pid)
        process.kill()
        for pid in descendants:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    process.join()
    process.close()
