"""Tests of JPEG files that are not quite whole: they are read with a warning, or refused when asked to be
strict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import photo
from image_helpers import saved
from sprdiff import cli
from sprdiff.batch.recode import Encode
from sprdiff.errors import ImageError
from sprdiff.imageio.jpeg import completed, warning_of
from sprdiff.imageio.open import open_rgb

KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "full colour": {"subsampling": 0},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 3},
}
MISSING = "its end is missing, but no pixel is"


def jpeg(
    kind: str = "baseline", mode: str = "RGB", height: int = 70, width: int = 90, seed: int = 0
) -> bytes:
    return saved(Image.fromarray(photo(height, width, seed)).convert(mode), "JPEG", **KINDS[kind])


def zeroed(data: bytes, share: float = 0.6, count: int = 60) -> bytes:
    start = int(len(data) * share)
    return data[:start] + bytes(count) + data[start + count :]


@pytest.fixture(params=["with the extra", "without"])
def extra(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    return bool(request.param == "with the extra")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_file_without_its_last_marker_is_read(cut: int, mode: str, kind: str, extra: bool) -> None:
    data = jpeg(kind, mode)
    picture = open_rgb(data[:-cut])
    assert np.array_equal(picture.pixels, open_rgb(data).pixels)
    assert picture.damage == MISSING and picture.warning == f"damaged, but read: {MISSING}"
    with pytest.raises(ImageError, match="end is missing"):
        open_rgb(data[:-cut], strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_lacks_pixels_is_refused(kind: str, extra: bool) -> None:
    data = jpeg(kind)
    start = data.index(b"\xff\xda")
    for cut in (start + 20, (start + len(data)) // 2, len(data) - 60):
        with pytest.raises(ImageError, match="damaged or truncated"):
            open_rgb(data[:cut])


@given(st.integers(0, 200), st.sampled_from(list(KINDS)), st.integers(3, 400))
def test_what_is_completed_has_the_same_pixels(seed: int, kind: str, cut: int) -> None:
    """The bytes do not tell where a file was cut, so a guess must never stand for a pixel."""
    data = jpeg(kind, height=40 + seed % 30, width=50 + seed % 17, seed=seed)
    whole = completed(data[:-cut])
    if whole is not None:
        assert np.array_equal(open_rgb(whole).pixels, open_rgb(data).pixels)


def test_a_progressive_file_that_lacks_its_last_scans_is_refused() -> None:
    """The file is cut exactly between two scans, so what is there decodes without a fault."""
    data = jpeg("progressive")
    last = data.rindex(b"\xff\xda")
    assert completed(data[:last]) is None
    assert completed(data[:last] + b"\xff") is None


@pytest.mark.parametrize("seed", range(6))
def test_damage_in_the_scan_is_told_with_the_extra(seed: int) -> None:
    data = zeroed(jpeg(height=170 + seed, width=190, seed=seed))
    assert warning_of(data).startswith("Corrupt JPEG data")
    picture = open_rgb(data)
    assert picture.damage == warning_of(data)
    with pytest.raises(ImageError, match="is damaged: Corrupt JPEG data"):
        open_rgb(data, strict=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_sound_file_raises_no_alarm(mode: str, kind: str, extra: bool) -> None:
    picture = open_rgb(jpeg(kind, mode), strict=True)
    assert not picture.damage and not picture.warning
    assert not open_rgb(jpeg(kind, mode) + b"what cameras leave behind the end", strict=True).damage


def test_sides_of_every_size_raise_no_alarm() -> None:
    for height, width in ((1, 1), (7, 9), (8, 8), (17, 33), (100, 3)):
        assert not warning_of(jpeg(height=height, width=width))
        assert not warning_of(jpeg("progressive", height=height, width=width))


def test_without_the_extra_damage_in_the_scan_goes_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/security.md says so: this is what the extra is for."""
    data = zeroed(jpeg(height=170, width=190))
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert not open_rgb(data, strict=True).damage


def test_the_command_warns_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(jpeg()[:-2])
    Path("b.jpg").write_bytes(zeroed(jpeg(height=170, width=190)))
    assert cli.main(["encode", "a.jpg", "b.jpg", "-o", "out", "-q", "10", "--quiet"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"sprdiff: warning: a.jpg: damaged, but read: {MISSING}"
    assert lines[1].startswith("sprdiff: warning: b.jpg: damaged, but read: Corrupt JPEG data")
    assert cli.main(["encode", "a.jpg", "b.jpg", "-o", "strict", "-q", "10", "--strict"]) == 1
    assert capsys.readouterr().err.count("error: ") == 2 and list(Path("strict").iterdir()) == []


def test_a_batch_notes_it_or_refuses() -> None:
    assert f"damaged: {MISSING}" in Encode(quality=10).make(jpeg()[:-2]).dropped
    with pytest.raises(ImageError, match="end is missing"):
        Encode(quality=10, strict=True).make(jpeg()[:-2])
