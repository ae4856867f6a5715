"""Tests of refinement on the sender: what it costs and gains, and that nothing else changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from conftest import photo
from sprdiff.codec import Codec
from sprdiff.errors import EffortError
from sprdiff.format.constants import LEVELS
from sprdiff.format.container import parse_file
from sprdiff.imageio.resize import tiles
from sprdiff.models.rate import lambda_of
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.stored import load_folder
from sprdiff.options import MAX_EFFORT
from sprdiff.runtime import search as effort
from sprdiff.runtime.onnx import OnnxRuntime
from sprdiff.runtime.search import ROUNDS, refine
from sprdiff.runtime.weights import default_folder
from sprdiff.sd.runtime import TorchRuntime
from tf32_helpers import emulate_tf32

pytest_plugins = ("weights_fixture",)

LEVEL = 128
QUALITY = 100 * LEVEL / 255


@pytest.fixture(scope="module")
def shipped() -> Codec:
    return Codec(threads=1)


@pytest.fixture(scope="module")
def model() -> SPRDiff:
    return load_folder(default_folder()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return photo(150, 200)


def squared_error(codec: Codec, data: bytes, original: NDArray[np.uint8]) -> float:
    """Return the squared error of the coarse picture in 0-1, summed over pixels."""
    decoded = np.asarray(codec.decode(data, realism=0), np.float64)
    return float(np.square(decoded - original).mean(2).sum()) / 255**2


def price(codec: Codec, data: bytes, original: NDArray[np.uint8]) -> float:
    """Return J of a whole file, in bits: its cost, and λ times the squared error of the coarse picture."""
    return 8 * len(data) + weight(codec, parse_file(data, original.size).header.level) * squared_error(
        codec, data, original
    )


def weight(codec: Codec, level: int) -> float:
    """Return λ, the weight of the squared error at a level."""
    return float(lambda_of(torch.tensor(float(level)), codec.runtime.manifest.lambda_range))


def test_a_refined_file_costs_less_for_what_it_brings(shipped: Codec, picture: NDArray[np.uint8]) -> None:
    plain, quick, thorough = (shipped.encode(picture, quality=QUALITY, effort=e) for e in (0, 2, 5))
    assert parse_file(thorough, picture.size).header == parse_file(plain, picture.size).header
    prices = [price(shipped, data, picture) for data in (plain, quick, thorough)]
    assert prices[1] < 0.99 * prices[0] and prices[2] < prices[1]


def test_targets_are_kept_and_used(shipped: Codec, picture: NDArray[np.uint8]) -> None:
    for limit in (160, 220):
        data = shipped.encode(picture, max_bytes=limit, scale=1, effort=2)
        assert 0.93 * limit < len(data) <= limit
        plain = shipped.encode(picture, max_bytes=limit, scale=1)
        assert squared_error(shipped, data, picture) < 0.99 * squared_error(shipped, plain, picture)


def test_a_target_too_small_for_refinement_is_kept_too(shipped: Codec, picture: NDArray[np.uint8]) -> None:
    least = len(shipped.encode(picture, quality=0, scale=8))
    assert len(shipped.encode(picture, max_bytes=least, effort=1)) <= least


def test_it_is_repeatable_and_reports(shipped: Codec, picture: NDArray[np.uint8]) -> None:
    told: list[float] = []
    files = [shipped.encode(picture, max_bytes=120, effort=1, report=told.append) for _ in range(2)]
    assert files[0] == files[1]
    half = told[: len(told) // 2]
    assert half == sorted(half) and 0 < half[0] < 0.5 and half[-1] == 1


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (64, 31), (320, 70)])
def test_any_size(size: tuple[int, int], shipped: Codec) -> None:
    original = photo(*size)
    assert shipped.decode(shipped.encode(original, quality=60, effort=1)).size == size[::-1]


@pytest.mark.parametrize("size", [(290, 130), (225, 353)])
def test_other_networks_can(size: tuple[int, int], codec: Codec, nano_weights: Path) -> None:
    original, other = photo(*size), load_folder(nano_weights).eval().requires_grad_(False)
    refined = codec.encode(original, quality=QUALITY, effort=2)
    assert codec.decode(refined).size == size[::-1]
    y, z = codec.runtime.analyse(original)
    tile = next(iter(tiles(y.shape[1], y.shape[2], 32, 8, 2)))
    tables = codec.runtime.entropy.level_tables(LEVEL)
    window = effort.Window(other, tables, *effort._part(original, tile), *effort._latents(y, z, tile), LEVEL)
    state = window.state(window.target, slope=True)
    coded = codec.runtime.entropy.encode(y, z, LEVEL)
    assert np.array_equal(state.y_hat[0].numpy() * 256, coded.y_hat) and coded.y_hat.any()
    assert state.slope is not None and state.slope.shape == state.y_hat.shape and state.slope.any()
    plain = codec.encode(original, quality=QUALITY)
    assert price(codec, refined, original) < price(codec, plain, original)


def test_the_symbols_that_it_counts_are_those_of_the_file(
    model: SPRDiff, shipped: Codec, picture: NDArray[np.uint8]
) -> None:
    """In the integer networks torch and numpy agree bit for bit, so what was tried is what is coded."""
    runtime = OnnxRuntime(default_folder(), threads=1)
    y, z = runtime.analyse(picture)
    tile = next(iter(tiles(y.shape[1], y.shape[2], 32, 8, 2)))
    tables = runtime.entropy.level_tables(LEVEL)
    window = effort.Window(model, tables, *effort._part(picture, tile), *effort._latents(y, z, tile), LEVEL)
    state = window.state(window.target)
    coded = runtime.entropy.encode(y, z, LEVEL)
    assert np.array_equal(state.y_hat[0].numpy() * 256, coded.y_hat)
    assert np.abs(coded.y_hat).max() > 0
    reconstruction = runtime.decode(coded, level=LEVEL, realism=0)
    error = np.square(reconstruction[: picture.shape[0], : picture.shape[1]] - picture / 255).mean(2).sum()
    bits = float(state.cost.sum()) - weight(shipped, LEVEL) * error
    z_bits = 8  # of which there are hardly any
    assert bits == pytest.approx(coded.bits, rel=0.15, abs=z_bits + 20), (
        "fitted tables differ a little from Gaussians"
    )


def test_the_symbols_are_those_of_the_file_at_every_level(
    model: SPRDiff, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most levels lie between knots, where torch's own tables would differ a little from those that are coded
    with."""
    # Only symbols are compared, and pictures take most of the time.
    monkeypatch.setattr(
        effort.Window, "_squared_error", lambda _, y_hat, means: torch.zeros_like(y_hat[:, :1])
    )
    runtime = OnnxRuntime(default_folder(), threads=1)
    picture = photo(128, 160)
    y, z = runtime.analyse(picture)
    tile = next(iter(tiles(y.shape[1], y.shape[2], 32, 8, 2)))
    part, latents = effort._part(picture, tile), effort._latents(y, z, tile)
    wrong, busy = [], 0
    for level in range(LEVELS):
        window = effort.Window(model, runtime.entropy.level_tables(level), *part, *latents, level)
        coded = runtime.entropy.encode(y, z, level)
        state = window.state(window.target)
        if not np.array_equal(state.y_hat[0].numpy() * 256, coded.y_hat):
            wrong.append(level)
        busy += int(state.symbols.count_nonzero()) > 0
    assert wrong == []
    assert busy > 250, "there is something to compare"


def test_the_search_counts_exactly_on_a_gpu_that_uses_tf32(
    model: SPRDiff, monkeypatch: pytest.MonkeyPatch, picture: NDArray[np.uint8]
) -> None:
    runtime = OnnxRuntime(default_folder(), threads=1)
    y, z = runtime.analyse(picture)
    tile = next(iter(tiles(y.shape[1], y.shape[2], 32, 8, 2)))
    coded = runtime.entropy.encode(y, z, 100)
    emulate_tf32(monkeypatch)
    tables = runtime.entropy.level_tables(100)
    window = effort.Window(model, tables, *effort._part(picture, tile), *effort._latents(y, z, tile), 100)
    assert np.array_equal(window.state(window.target).y_hat[0].numpy() * 256, coded.y_hat)


def test_windows_cover_large_pictures(
    model: SPRDiff, monkeypatch: pytest.MonkeyPatch, picture: NDArray[np.uint8]
) -> None:
    monkeypatch.setattr(effort, "WINDOW", 4)
    monkeypatch.setattr(effort, "HALO", 2)
    runtime = OnnxRuntime(default_folder(), threads=1)
    large = np.tile(picture, (2, 2, 1))[:290, :390]
    y, z = runtime.analyse(large)
    told: list[float] = []
    refined = refine(
        model, runtime.entropy.level_tables(LEVEL), large, y, z, LEVEL, rounds=3, report=told.append
    )
    changed = (np.abs(refined - y).max(0) > 1e-3).astype(int)
    assert all(
        changed[rows, columns].any()
        for rows in (slice(4), slice(4, 10))
        for columns in (slice(4), slice(8, 13))
    )
    assert told == sorted(told) and told[-1] == pytest.approx(1)
    assert np.isfinite(refined).all() and refined.shape == y.shape


def test_no_effort_is_the_same_file_without_torch(
    picture: NDArray[np.uint8], shipped: Codec, tmp_path: Path
) -> None:
    Image.fromarray(picture).save(tmp_path / "photo.png")
    script = (
        "import sys; sys.modules['torch'] = None; from sprdiff.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "encode",
        str(tmp_path / "photo.png"),
        "-q",
        "50",
        "--scale",
        "1",
    ]
    done = subprocess.run([*command, "--effort", "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "photo.sprd").read_bytes() == shipped.encode(picture, quality=50, scale=1)
    done = subprocess.run([*command, "-f", "--effort", "3"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'sprdiff[train]'" in done.stderr
    assert (tmp_path / "photo.sprd").read_bytes() == shipped.encode(picture, quality=50, scale=1), (
        "left as it was"
    )


def test_the_command_refines(tmp_path: Path, picture: NDArray[np.uint8], shipped: Codec) -> None:
    Image.fromarray(picture).save(tmp_path / "photo.png")
    command = [
        sys.executable,
        "-m",
        "sprdiff",
        "encode",
        str(tmp_path / "photo.png"),
        "-q",
        "50",
        "--threads",
        "1",
    ]
    done = subprocess.run([*command, "--effort", "2"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "quiet in a pipe"
    data = (tmp_path / "photo.sprd").read_bytes()
    assert price(shipped, data, picture) < price(shipped, shipped.encode(picture, quality=50), picture)
    assert subprocess.run([*command, "--effort", "10"], capture_output=True, check=False).returncode == 2


def test_efforts_out_of_range(codec: Codec) -> None:
    assert len(ROUNDS) == MAX_EFFORT + 1 and list(ROUNDS) == sorted(ROUNDS)
    for wrong in (-1, MAX_EFFORT + 1, 1.5):
        with pytest.raises(ValueError, match="effort must be"):
            codec.encode(photo(64, 64), effort=wrong)  # type: ignore[arg-type]


def test_only_tiny_can() -> None:
    with pytest.raises(EffortError, match="preset tiny"):
        TorchRuntime.refine(object.__new__(TorchRuntime))
