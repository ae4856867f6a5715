"""Tests of the networks on onnxruntime: tiles, dials, noise, and what is loaded when."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import one_cell, photo
from sprdiff.errors import WeightsError
from sprdiff.format.entropy import Exact
from sprdiff.runtime.canvas import Canvas
from sprdiff.runtime.noise import normal_noise
from sprdiff.runtime.onnx import OnnxRuntime, strength
from sprdiff.runtime.sessions import Tensors
from sprdiff.runtime.weights import GRAPHS, read_manifest

pytest_plugins = ("weights_fixture",)

LEVEL = 128
SIZE = (700, 1030)


@pytest.fixture(scope="module")
def runtime(nano_weights: Path) -> OnnxRuntime:
    return OnnxRuntime(nano_weights, threads=1)


@pytest.fixture(scope="module")
def exact(runtime: OnnxRuntime) -> Exact:
    """Return what is known of a picture that is larger than any halo."""
    return known(runtime, photo(*SIZE))


def known(runtime: OnnxRuntime, pixels: NDArray[np.uint8]) -> Exact:
    return runtime.entropy.encode(*runtime.analyse(pixels), LEVEL)


def corner(exact: Exact, rows: int, columns: int) -> Exact:
    place = (slice(None), slice(rows), slice(columns))
    return Exact(exact.y_hat[place], exact.mu[place], exact.h[place])


# --- tiles


def test_tiled_analysis_is_that_of_the_whole(runtime: OnnxRuntime, nano_weights: Path) -> None:
    pixels = photo(*SIZE)
    whole = runtime.analyse(pixels)
    tiled = OnnxRuntime(nano_weights, threads=1, tile=128).analyse(pixels)
    for a, b in zip(whole, tiled, strict=True):
        assert a.shape == b.shape
        assert np.abs(a).max() > 0.1
        assert np.abs(a - b).max() < 1e-3


@pytest.mark.parametrize(("realism", "steps"), [(1.0, 1), (0.0, 1), (0.5, 3)])
@pytest.mark.parametrize("tile", [96, 288])
def test_tiled_pictures_are_those_of_the_whole(
    runtime: OnnxRuntime, nano_weights: Path, exact: Exact, realism: float, steps: int, tile: int
) -> None:
    """Therefore the same seed gives the same picture, whatever the tiles are."""

    def picture(which: OnnxRuntime) -> NDArray[np.int16]:
        image = which.decode(
            exact, level=LEVEL, realism=realism, steps=steps, seed=5, size=SIZE, dtype=np.uint8
        )
        return image.astype(np.int16)

    whole, tiled = picture(runtime), picture(OnnxRuntime(nano_weights, threads=1, tile=tile))
    assert whole.std() > 5
    assert np.abs(whole - tiled).max() <= 1


def test_every_graph_has_a_halo(nano_weights: Path) -> None:
    manifest = read_manifest(nano_weights)
    assert set(manifest.halo) == set(GRAPHS)
    assert all(
        0 < manifest.halo_of(graph) <= 512 and manifest.halo_of(graph) % 64 == 0 for graph in manifest.halo
    )


# --- analyse


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (64, 64), (65, 127), (33, 32)])
def test_latent_grids(runtime: OnnxRuntime, size: tuple[int, int]) -> None:
    y, z = runtime.analyse(photo(*size))
    rows, columns = -(-size[0] // 32), -(-size[1] // 32)
    assert y.shape == (runtime.entropy.y_channels, rows, columns)
    assert z.shape == (runtime.entropy.z_channels, -(-rows // 2), -(-columns // 2))
    assert y.dtype == z.dtype == np.float32


def test_edges_are_repeated_beyond_the_border(runtime: OnnxRuntime) -> None:
    pixels = photo(65, 127)
    padded = np.pad(pixels, ((0, 63), (0, 1), (0, 0)), "edge")
    (y, z), (y_padded, z_padded) = runtime.analyse(pixels), runtime.analyse(padded)
    assert np.array_equal(y, y_padded[:, :3, :4])
    assert np.array_equal(z, z_padded)


# --- decode


def test_pictures_are_floats_or_bytes(runtime: OnnxRuntime, exact: Exact) -> None:
    small = corner(exact, 3, 5)
    floats = runtime.decode(small, level=LEVEL)
    integers = runtime.decode(small, level=LEVEL, size=(70, 130), dtype=np.uint8)
    assert floats.shape == (96, 160, 3) and floats.dtype == np.float32
    assert floats.min() >= 0 and floats.max() <= 1
    assert integers.shape == (70, 130, 3)
    assert np.abs(floats[:70, :130] * 255 - integers).mean() < 0.5  # the flow sees a rounded coarse picture


def test_realism_goes_from_the_coarse_picture_to_the_sample(runtime: OnnxRuntime, exact: Exact) -> None:
    def picture(realism: float) -> NDArray[np.float32]:
        return runtime.decode(corner(exact, 4, 4), level=LEVEL, realism=realism)

    coarse, nearly, half, decoded = map(picture, (0.0, 0.01, 0.5, 1.0))
    assert np.abs(coarse - decoded).max() > 0.05
    assert np.allclose(half, (coarse + decoded) / 2, atol=1e-6)
    assert (np.abs(nearly - coarse) <= 1 / 255).mean() >= 0.999 and not np.array_equal(nearly, coarse)


def test_the_dial_is_continuous_and_grows() -> None:
    shares = [strength(i / 1000) for i in range(1001)]
    assert (shares[0], shares[-1]) == (0, 1)
    assert all(0 < b - a < 0.01 for a, b in itertools.pairwise(shares))


def test_every_input_of_the_picture_matters(runtime: OnnxRuntime, exact: Exact) -> None:
    small = corner(exact, 2, 2)
    base = runtime.decode(small, level=LEVEL, realism=0)
    for name in ("y_hat", "mu", "h"):
        other = Exact(
            **{**vars(small), name: getattr(small, name) + np.array(64, getattr(small, name).dtype)}
        )
        assert np.abs(runtime.decode(other, level=LEVEL, realism=0) - base).max() > 1e-4, name
    assert np.abs(runtime.decode(small, level=LEVEL + 40, realism=0) - base).max() > 1e-4


def test_steps_and_seeds(runtime: OnnxRuntime, exact: Exact) -> None:
    def picture(steps: int, seed: int) -> NDArray[np.float32]:
        return runtime.decode(corner(exact, 3, 3), level=LEVEL, steps=steps, seed=seed)

    assert np.array_equal(picture(2, 9), picture(2, 9))
    pictures = [picture(1, 0), picture(1, 9), picture(2, 0), picture(2, 2**64 - 1), picture(4, 0)]
    for i, a in enumerate(pictures):
        assert all(np.abs(a - b).max() > 1e-3 for b in pictures[:i])


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_steps_count_evaluations(
    runtime: OnnxRuntime, exact: Exact, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    run = runtime._sessions.run

    def counted(graph: str, *arguments: Any, **options: Any) -> Tensors:
        asked.append(graph)
        return run(graph, *arguments, **options)

    monkeypatch.setattr(runtime._sessions, "run", counted)
    runtime.decode(corner(exact, 1, 1), level=LEVEL, steps=steps)
    assert asked == ["coarse", "condition", *["flow"] * steps, "vae_decode"]
    asked.clear()
    runtime.decode(corner(exact, 1, 1), level=LEVEL, steps=steps, realism=0)
    assert asked == ["coarse"]


def test_any_latent_gives_a_picture(runtime: OnnxRuntime) -> None:
    for value in (2**31 - 1, -(2**31)):
        exact = one_cell(runtime.entropy, value)
        for realism in (0.0, 0.5, 1.0):
            assert np.isfinite(runtime.decode(exact, level=255, realism=realism)).all()
            assert runtime.decode(exact, level=0, realism=realism, dtype=np.uint8).shape == (32, 32, 3)


def test_only_the_graphs_that_are_run_are_loaded(nano_weights: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(nano_weights, tmp_path / "w")
    for graph in ("encoder", "condition", "flow", "vae_decode"):
        (folder / f"{graph}.onnx").unlink()
    (folder / "encoder.npz").unlink()
    runtime = OnnxRuntime(folder, threads=1)
    assert runtime.decode(one_cell(runtime.entropy), level=0, realism=0).shape == (32, 32, 3)
    with pytest.raises(WeightsError, match=r"condition\.onnx cannot be read"):
        runtime.decode(one_cell(runtime.entropy), level=0)
    with pytest.raises(WeightsError, match=r"encoder\.npz cannot be read"):
        runtime.analyse(photo(8, 8))


def test_the_runtime_is_silent(nano_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runtime = OnnxRuntime(nano_weights, threads=1)
    runtime.decode(known(runtime, photo(64, 64)), level=LEVEL)
    assert capfd.readouterr() == ("", "")


# --- canvas


def test_the_canvas_cuts_clips_and_blends() -> None:
    canvas = Canvas((2, 3), np.uint8)
    everything = (slice(0, 4), slice(0, 4))
    canvas.put(everything, np.full((3, 4, 4), 2.0, np.float32))
    assert (canvas.image == 255).all()
    canvas.put((slice(0, 4), slice(2, 6)), np.full((3, 4, 4), np.nan, np.float32), 0.75)
    assert (canvas.image[:, :2] == 255).all()
    assert (canvas.image[:, 2] == 64).all()


# --- noise


def test_noise_is_a_function_of_its_place() -> None:
    whole = normal_noise(7, slice(0, 20), slice(0, 30), 6)
    part = normal_noise(7, slice(3, 9), slice(11, 30), 6)
    assert whole.shape == (6, 20, 30)
    assert np.array_equal(whole[:, 3:9, 11:30], part)
    assert not np.isclose(whole, normal_noise(8, slice(0, 20), slice(0, 30), 6)).any()


def test_noise_is_normal() -> None:
    noise = normal_noise(0, slice(0, 100), slice(0, 100), 32).astype(np.float64)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.05
    assert np.abs(np.corrcoef(noise.reshape(32, -1)) - np.eye(32)).max() < 0.05


def test_noise_is_the_same_for_ever() -> None:
    noise = normal_noise(1, slice(5, 6), slice(0, 2), 2)
    assert np.allclose(noise.ravel(), [1.4621614, -0.1883514, 0.0949670, 1.1904189], atol=1e-5)
