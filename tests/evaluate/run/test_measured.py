"""Tests of measuring in a fresh process: its figures are reliable, and it survives every way of going
wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from codec_helpers import Budgeted, Coarse, Wrong
from conftest import photo
from sprdiff.evaluate.codecs.base import Setting
from sprdiff.evaluate.codecs.pillow import Jpeg
from sprdiff.evaluate.run.measured import MeasurementError, measure

SETTING: Setting = {"quality": 20, "factor": 2}
PIXELS = photo(120, 200)

has_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def peak(how: str) -> int:
    found = measure(Wrong(how=how), PIXELS, SETTING).peak_bytes
    assert found is not None
    return found


def test_a_measurement() -> None:
    size = len(Jpeg().encode_at(PIXELS, SETTING))
    result = measure(Jpeg(), PIXELS, SETTING, expected_bytes=size)
    assert result.encode_s > 0 and result.decode_s > 0


def test_decoding_takes_its_time() -> None:
    assert measure(Wrong(how="slow"), PIXELS, SETTING).decode_s >= 0.2


def test_a_codec_with_other_settings() -> None:
    assert measure(Budgeted(), photo(200, 200), {"level": 1}, expected_bytes=100).encode_s > 0


def test_the_first_encode_loads_libraries_and_is_not_the_one_measured() -> None:
    once = len(Coarse().encode_at(PIXELS, SETTING))
    measure(Wrong(how="longer each time"), PIXELS, SETTING, expected_bytes=once + 2000)


def test_another_size_than_before() -> None:
    with pytest.raises(MeasurementError, match=r"coarse made \d+ bytes where it had made 7 before"):
        measure(Coarse(), PIXELS, SETTING, expected_bytes=7)


@has_proc
def test_memory_of_the_process_and_of_what_it_starts() -> None:
    plain = peak("")
    assert 10_000_000 < plain < 150_000_000
    assert 150_000_000 < peak("hungry") - plain + 10_000_000 < 300_000_000
    assert 150_000_000 < peak("hungry child") - plain < 400_000_000


@has_proc
def test_memory_of_this_process_does_not_count() -> None:
    large = bytearray(400_000_000)
    large[::1000] = bytes(len(large[::1000]))  # every page is touched
    assert peak("") < 200_000_000


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("error", "^wrong: cannot encode$"),
        ("bug", "^coarse: ZeroDivisionError: oh$"),
        ("crash", "^coarse: the measuring process ended with status -9$"),
    ],
)
def test_failures_are_told(how: str, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        measure(Wrong(how=how), PIXELS, SETTING)


@has_proc
def test_what_takes_too_long_is_ended_with_all_it_started() -> None:
    with pytest.raises(MeasurementError, match="the measurement took more than 3 s"):
        measure(Wrong(how="hang"), PIXELS, SETTING, timeout=3)
    for _ in range(1000):  # it is told to end, which may take a moment
        if not any(b"time.sleep(1000)" in command for command in commands()):
            return
        time.sleep(0.01)
    pytest.fail("what the process started is still running")


def commands() -> list[bytes]:
    """Return the command lines of all processes of this user."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.stat().st_uid == os.getuid():
                found.append(path.read_bytes())
        except OSError:
            continue
    return found
