"""Tests of metrics against identities, closed forms and values of the reference implementation."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import photo
from sprdiff.errors import ImageError, WeightsError
from sprdiff.evaluate.metrics.distortion import MIN_SIDE, ms_ssim, ms_ssim_from, psnr
from sprdiff.evaluate.metrics.features import DIMENSIONS, FeatureNetwork, _shapes, frechet_distance

Bytes = NDArray[np.uint8]


def pair(height: int, width: int) -> tuple[Bytes, Bytes]:
    """Make two related pictures of integers only, which are the same on every machine."""
    y, x = np.mgrid[0:height, 0:width]
    a = np.stack([(x * 7 + y * 3) % 256, (x * y // 16) % 256, (x * x // 64 + y * 5) % 256], -1)
    b = np.clip(a * 3 // 4 + ((x * 13 + y * 17) % 41)[..., None], 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


# PSNR


def test_psnr_of_identical_images_is_infinite() -> None:
    a, _ = pair(16, 24)
    assert psnr(a, a.copy()) == math.inf


def test_psnr_is_symmetric_and_does_not_wrap_around() -> None:
    black, white = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)
    assert psnr(black, white) == psnr(white, black) == 0.0


def test_psnr_of_a_constant_error() -> None:
    a = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(a, a + np.uint8(1)) == pytest.approx(20 * math.log10(255))
    assert psnr(a, a - np.uint8(10)) == pytest.approx(20 * math.log10(25.5))


# MS-SSIM


@pytest.mark.parametrize(
    ("height", "width", "reference"),
    # pytorch-msssim 1.0.0, data_range=255, float64; odd sides at some scale in all but the first.
    [
        (176, 208, 0.9420369132),
        (176, 200, 0.9417637728),
        (161, 161, 0.9400672288),
        (191, 177, 0.9412361168),
        (165, 323, 0.9450571125),
    ],
)
def test_ms_ssim_agrees_with_the_reference(height: int, width: int, reference: float) -> None:
    a, b = pair(height, width)
    assert ms_ssim(a, b) == pytest.approx(reference, abs=1e-5)


def test_ms_ssim_identity_symmetry_and_order() -> None:
    a, b = pair(176, 176)
    assert ms_ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert ms_ssim(a, b) == pytest.approx(ms_ssim(b, a), abs=1e-12)
    assert ms_ssim(a, 255 - a) < ms_ssim(a, b) < 1.0


def test_ms_ssim_negative_terms_count_as_zero() -> None:
    a, _ = pair(176, 176)
    assert ms_ssim(a, 255 - a) == 0.0


def test_ms_ssim_is_given_up_only_where_it_is_less() -> None:
    for seed in range(4):
        a = photo(176, 200, seed=seed)
        b = np.clip(a + np.random.default_rng(seed).normal(0, 10 + 40 * seed, a.shape), 0, 255).astype(
            np.uint8
        )
        score = ms_ssim(a, b)
        assert ms_ssim_from(a, b, score) == score, "the score itself is enough, to the last bit"
        assert ms_ssim_from(a, b, np.nextafter(score, 2.0)) is None
        assert ms_ssim_from(a, b, 0.0) == score and ms_ssim_from(a, b, 1.0) is None
    assert ms_ssim_from(a, a, 1.0 - 1e-9) == ms_ssim(a, a)


def test_ms_ssim_refuses_images_too_small_for_five_scales() -> None:
    a, b = pair(MIN_SIDE - 1, 200)
    with pytest.raises(ImageError, match="161"):
        ms_ssim(a, b)


# Refusals


@pytest.mark.parametrize("metric", [psnr, ms_ssim])
def test_images_must_be_uint8_of_one_shape(metric: object) -> None:
    assert callable(metric)
    a, b = pair(176, 176)
    with pytest.raises(ImageError, match="different shapes"):
        metric(a, b[:, :-1])
    with pytest.raises(ImageError, match="uint8"):
        metric(a.astype(np.float32), b.astype(np.float32))
    with pytest.raises(ImageError, match="uint8"):
        metric(a[..., 0], b[..., 0])
    with pytest.raises(ImageError, match="uint8"):
        metric(a[:0], b[:0])


# Fréchet distance


def gaussian_set(rows: int = 64, columns: int = 6) -> NDArray[np.float64]:
    return np.random.Generator(np.random.Philox(7)).normal(size=(rows, columns))


def test_frechet_of_a_set_with_itself_is_zero() -> None:
    a = gaussian_set()
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_of_a_shift_is_its_squared_length() -> None:
    a = gaussian_set()
    assert frechet_distance(a, a + np.array([3.0, 4.0, 0, 0, 0, 0])) == pytest.approx(25.0)


def test_frechet_of_a_scaling_follows_the_closed_form() -> None:
    a = gaussian_set() - gaussian_set().mean(0)
    # Covariance C against 4C: trace(C + 4C - 2 * 2C) = trace(C).
    trace = float(np.trace(np.cov(a, rowvar=False)))
    assert frechet_distance(a, 2 * a) == pytest.approx(trace)


def test_frechet_is_symmetric_for_covariances_that_do_not_commute() -> None:
    a = gaussian_set()
    b = np.cumsum(gaussian_set(80), axis=1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    # trace of (A B)^(1/2) from the eigenvalues of the unsymmetric product
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    overlap = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real).sum()
    shift = a.mean(0) - b.mean(0)
    expected = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(float(expected))


def test_frechet_takes_fewer_rows_than_dimensions() -> None:
    a = gaussian_set(5, 16)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_frechet_refuses_what_is_not_two_sets_of_features() -> None:
    a = gaussian_set()
    for bad in (a[:1], a[:, :-1], a[0]):
        with pytest.raises(ImageError, match="features"):
            frechet_distance(a, bad)
    with pytest.raises(ImageError, match="finite"):
        frechet_distance(a, np.full_like(a, np.nan))


def test_torch_is_imported_only_when_a_network_is_made() -> None:
    code = "import sys, sprdiff.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The feature network, with random weights: the real ones are not part of the repository.


def random_arrays() -> dict[str, NDArray[np.float32]]:
    generator = np.random.Generator(np.random.Philox(3))
    return {
        name: (generator.normal(size=shape) * math.sqrt(2.0 / math.prod(shape[1:]))).astype(np.float32)
        for name, shape in _shapes().items()
    }


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FeatureNetwork:
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("features") / "network.npz"
    save_npz(path, random_arrays())
    return FeatureNetwork.load(path)


def test_feature_distance_identity_symmetry_and_order(network: FeatureNetwork) -> None:
    a, b = pair(70, 93)
    assert network.feature_distance(a, a) == 0.0
    assert network.feature_distance(a, b) == pytest.approx(network.feature_distance(b, a))
    assert 0.0 < network.feature_distance(a, b) < network.feature_distance(a, 255 - a) < 14.0


def test_feature_distance_sees_the_order_of_channels(network: FeatureNetwork) -> None:
    a, b = pair(64, 64)
    swapped = network.feature_distance(a[..., ::-1].copy(), b[..., ::-1].copy())
    assert swapped != pytest.approx(network.feature_distance(a, b), rel=1e-3)


def test_patches_are_taken_in_raster_order_each_by_itself(network: FeatureNetwork) -> None:
    a, _ = pair(200, 260)
    features = network.patch_features(a)
    assert features.shape == (2 * 3, DIMENSIONS)
    alone = network.patch_features(np.ascontiguousarray(a[64:192, 128:256]))
    np.testing.assert_allclose(features[5], alone[0], rtol=1e-4, atol=1e-4)


def test_feature_network_refuses_small_or_grey_images(network: FeatureNetwork) -> None:
    a, b = pair(31, 200)
    with pytest.raises(ImageError, match="at least 32"):
        network.feature_distance(a, b)
    with pytest.raises(ImageError, match="at least 128"):
        network.patch_features(a)
    with pytest.raises(ImageError, match="RGB"):
        network.patch_features(np.zeros((128, 128, 1), np.uint8))


def test_hdf5_of_keras_is_read_like_npz(network: FeatureNetwork, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "network.h5"
    with h5py.File(path, "w") as file:
        for name, array in random_arrays().items():
            layer, kind = name.rsplit(".", 1)
            inner = f"{layer.split('.')[0]}/" if "." in layer else ""
            values = array.transpose(2, 3, 1, 0) if kind == "weight" else array
            file[f"{layer.replace('.', '/')}/{inner}{kind}"] = values
    a, b = pair(40, 50)
    assert FeatureNetwork.load(path).feature_distance(a, b) == network.feature_distance(a, b)


def test_bad_feature_weights_are_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    arrays = random_arrays()
    arrays["conv1.bias"] = arrays["conv1.bias"][:-1]
    save_npz(tmp_path / "shape.npz", arrays)
    (tmp_path / "noise.npz").write_bytes(b"not a network")
    for name, message in {"shape": "conv1.bias", "noise": "cannot read", "absent": "cannot read"}.items():
        with pytest.raises(WeightsError, match=message):
            FeatureNetwork.load(tmp_path / f"{name}.npz")
