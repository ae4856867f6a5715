"""Tests of what bounds the work on hostile input, one promise of docs/security.md after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import attack_doors as doors
import sprdiff.cli
from conftest import photo
from sprdiff.codec import Codec
from sprdiff.errors import LimitError, PluginError
from sprdiff.interrupt import interruptible
from sprdiff.limits import Deadline
from sprdiff.loading import load_runtime
from sprdiff.pillow import register_sprdiff_opener

pytest_plugins = ("weights_fixture",)


class Counter:
    """A check that counts, and stops at a number."""

    def __init__(self, last: int = 10**9) -> None:
        self.calls, self.last = 0, last

    def __call__(self, pixels: int) -> None:
        self.calls += 1
        if self.calls > self.last:
            raise LimitError("enough")


@pytest.fixture(scope="module")
def tiled() -> Codec:
    """Make a codec that cuts a small picture into many tiles."""
    return Codec.from_runtime(load_runtime(threads=1, tile=64))


def within(check: Counter, work: Callable[[], Any]) -> Any:
    with interruptible(check):
        return work()


def test_work_stops_between_tiles(tiled: Codec) -> None:
    picture = photo(192, 256)

    def encode() -> bytes:
        return tiled.encode(picture, quality=20)

    whole = Counter()
    data = within(whole, encode)
    assert whole.calls > 12, "an encoder sees 12 tiles"
    for last in (0, 5, whole.calls - 1):
        with pytest.raises(LimitError, match="enough"):
            within(Counter(last), encode)

    def decode() -> Image.Image:
        return tiled.decode(data, steps=2)

    decoding = Counter()
    image = within(decoding, decode)
    assert decoding.calls > 4 * 12, "four passes over 12 tiles"
    for last in (0, 20, decoding.calls - 1):
        with pytest.raises(LimitError, match="enough"):
            within(Counter(last), decode)
    assert decode().tobytes() == image.tobytes(), "what was stopped leaves nothing behind"


def test_a_deadline() -> None:
    now = [0.0]
    deadline = Deadline(5, lambda: now[0])
    deadline(10**9)
    now[0] = 5.5
    with pytest.raises(LimitError, match="not finished within the limit of 5 seconds"):
        deadline(0)


def test_the_plug_in_and_the_thumbnailer_have_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sprdiff import pillow
    from sprdiff import thumbnailer as pillow_thumbnailer

    path = tmp_path / "a.sprd"
    path.write_bytes(doors.codec().encode(photo(64, 64), quality=20))
    told: list[float] = []

    def over(seconds: float) -> Counter:
        told.append(seconds)
        return Counter(0)

    monkeypatch.setattr(pillow, "Deadline", over)
    try:
        register_sprdiff_opener(max_seconds=7, threads=1)
        with Image.open(path) as image, pytest.raises(PluginError, match="enough"):
            image.load()
        with pytest.raises(PluginError, match="enough"):
            Image.fromarray(photo(64, 64)).save(tmp_path / "b.sprd")
        assert pillow_thumbnailer.main(["-s", "16", str(path), str(tmp_path / "a.png")]) == 1
    finally:
        register_sprdiff_opener()
    assert told == [7, 7, pillow_thumbnailer.SECONDS]
    assert capsys.readouterr().err == f"sprdiff-thumbnailer: error: {path}: enough\n"
    with pytest.raises(ValueError, match="max_seconds"):
        register_sprdiff_opener(max_seconds=0)


@pytest.mark.parametrize(
    "command",
    [
        ["link", "/dev/zero", "--viewer", "https://example.org/"],
        ["qr", "/dev/zero", "code.png", "--raw"],
        ["packets", "/dev/zero", "-o", "packets", "--payload", "200"],
    ],
)
def test_an_endless_input_is_refused_by_its_beginning(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sprdiff.cli.main(command) == 1
    said = capsys.readouterr().err
    assert "not an image" in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
