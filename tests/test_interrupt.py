"""Tests of work that is ended from outside: between tiles, steps and strips, by a flag or by a sum of
pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import photo
from sd_helpers import exactly, write_trained_folder
from sprdiff.codec import Codec
from sprdiff.errors import StoppedError
from sprdiff.format.entropy import Exact
from sprdiff.imageio.resize import STRIP_PIXELS, resize
from sprdiff.interrupt import checkpoint, interruptible
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.search import ROUNDS
from sprdiff.runtime.sessions import Sessions
from sprdiff.sd.pretrained import load
from sprdiff.sd.runtime import TorchRuntime

pytest_plugins = ("weights_fixture",)

LEVEL = 128


class Limit:
    """A limit of work: it raises an error before more pieces, or more pixels in all, than it allows."""

    def __init__(self, pieces: int = 10**9, pixels: int = 10**12) -> None:
        self.pieces, self.pixels = pieces, pixels
        self.told: list[int] = []

    def __call__(self, pixels: int) -> None:
        self.told.append(pixels)
        if len(self.told) > self.pieces or sum(self.told) > self.pixels:
            raise StoppedError("above the limit of work")


def work_of(job: Callable[[], object]) -> list[int]:
    """Return the pixels of each piece of a job."""
    limit = Limit()
    with interruptible(limit):
        job()
    return limit.told


def stops_after(pieces: int, job: Callable[[], object]) -> None:
    """Check that the job ends before its next piece."""
    limit = Limit(pieces)
    with pytest.raises(StoppedError), interruptible(limit):
        job()
    assert len(limit.told) == pieces + 1


# The hook by itself


def test_checks_hold_inside_their_block_and_those_around_it_too() -> None:
    outer, inner = Limit(), Limit()
    checkpoint(1)
    with interruptible(outer):
        checkpoint(2)
        with interruptible(inner):
            checkpoint(3)
        with pytest.raises(ZeroDivisionError), interruptible(inner):
            raise ZeroDivisionError
        checkpoint(4)
    checkpoint(5)
    assert (outer.told, inner.told) == ([2, 3, 4], [3])


def test_checks_hold_for_their_own_thread() -> None:
    limit = Limit()
    with interruptible(limit):
        other = threading.Thread(target=checkpoint)
        other.start()
        other.join()
    assert limit.told == []


# Tiles on onnxruntime


@pytest.fixture(scope="module")
def tiled(nano_weights: Path) -> OnnxRuntime:
    return OnnxRuntime(nano_weights, threads=1, tile=128)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep the names of the graphs that run from here on."""
    found: list[str] = []
    run = Sessions.run

    def counted(self: Sessions, graph: str, *given: object, **options: object) -> object:
        found.append(graph)
        return run(self, graph, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Sessions, "run", counted)
    return found


def nothing(runtime: OnnxRuntime) -> Exact:
    """Return what is known of a picture of 256x384 pixels without a symbol."""
    known = runtime.entropy.decode(b"", (8, 12), LEVEL)
    return Exact(known.y_hat * 0, known.mu * 0, known.h)


def test_every_run_of_a_graph_is_announced_with_its_pixels(tiled: OnnxRuntime, runs: list[str]) -> None:
    told = work_of(lambda: tiled.analyse(photo(256, 384)))
    assert len(told) == len(runs) == 6 and runs == ["encoder"] * 6
    assert min(told) >= 128 * 128 and sum(told) > 256 * 384, "tiles overlap by their halo"
    known = nothing(tiled)
    for realism, steps, graphs in ((0.0, 1, 1), (1.0, 1, 4), (0.5, 3, 8)):
        runs.clear()

        def decode(realism: float = realism, steps: int = steps) -> object:
            return tiled.decode(known, level=LEVEL, realism=realism, steps=steps)

        told = work_of(decode)
        assert len(told) == len(runs) == 6 * graphs and min(told) >= 128 * 128


@pytest.mark.parametrize("pieces", [0, 1, 7, 13])
def test_decoding_stops_before_the_next_tile(tiled: OnnxRuntime, runs: list[str], pieces: int) -> None:
    known = nothing(tiled)
    runs.clear()
    stops_after(pieces, lambda: tiled.decode(known, level=LEVEL))
    assert len(runs) == pieces


def test_a_codec_stops_and_works_again_afterwards(tiled: OnnxRuntime, runs: list[str]) -> None:
    codec = Codec.from_runtime(tiled)
    picture = photo(256, 384)
    data = codec.encode(picture, quality=30, scale=1)
    whole = np.asarray(codec.decode(data))
    runs.clear()
    stops_after(3, lambda: codec.encode(picture, quality=30, scale=1))
    assert runs == ["encoder"] * 3
    stops_after(2, lambda: codec.decode(data))
    assert runs == ["encoder"] * 3, "the entropy decoder can be stopped too"
    with pytest.raises(StoppedError), interruptible(Limit(pixels=2 * 256 * 384)):
        codec.decode(data)
    assert codec.encode(picture, quality=30, scale=1) == data
    assert np.array_equal(np.asarray(codec.decode(data)), whole)


def test_each_step_of_the_entropy_coder_can_be_the_last(tiled: OnnxRuntime) -> None:
    y, z = tiled.analyse(photo(64, 64))
    told = work_of(lambda: tiled.entropy.encode(y, z, LEVEL))
    assert told and set(told) == {0}
    stream = tiled.entropy.encode(y, z, LEVEL).stream
    assert work_of(lambda: tiled.entropy.decode(stream, (2, 2), LEVEL)) == told
    stops_after(1, lambda: tiled.entropy.decode(stream, (2, 2), LEVEL))


def test_refinement_stops_between_its_rounds(nano_weights: Path) -> None:
    runtime = OnnxRuntime(nano_weights, threads=1)
    picture = photo(64, 96)
    y, z = runtime.analyse(picture)
    told = work_of(lambda: runtime.refine(picture, y, z, LEVEL, 3))
    assert told == [64 * 96] * (ROUNDS[3] + 1)
    stops_after(2, lambda: runtime.refine(picture, y, z, LEVEL, 3))


def test_making_a_picture_smaller_stops_between_strips() -> None:
    large = np.zeros((2 * STRIP_PIXELS // 1024, 1024, 3), np.uint8)
    size = (large.shape[0] // 2, 512)
    told = work_of(lambda: resize(large, size))
    assert len(told) > 1 and sum(told) == size[0] * size[1]
    stops_after(1, lambda: resize(large, size))


# Tiles on torch


@pytest.fixture(scope="module")
def torch_tiled(tmp_path_factory: pytest.TempPathFactory) -> TorchRuntime:
    whole = load(write_trained_folder(tmp_path_factory.mktemp("sd")), device="cpu")
    return TorchRuntime(whole.model, whole.entropy, whole.manifest, device="cpu", tile=128)


def test_the_networks_on_torch_stop_between_tiles(torch_tiled: TorchRuntime) -> None:
    picture = photo(192, 256)
    told = work_of(lambda: torch_tiled.analyse(picture))
    assert len(told) > 1 and min(told) >= 128 * 64 and sum(told) >= 192 * 256
    stops_after(1, lambda: torch_tiled.analyse(picture))
    exact = exactly(torch_tiled, np.zeros((torch_tiled.entropy.y_channels, 3, 4), np.float32), LEVEL)
    coarse = work_of(lambda: torch_tiled.decode(exact, level=LEVEL, realism=0.0))
    told = work_of(lambda: torch_tiled.decode(exact, level=LEVEL))
    assert told[: len(coarse)] == coarse and sum(coarse) >= 192 * 256
    # Denoiser and VAE decoder go over the picture once each.
    assert sum(told[len(coarse) :]) >= 2 * 192 * 256
    for pieces in range(len(told)):
        stops_after(pieces, lambda: torch_tiled.decode(exact, level=LEVEL))
