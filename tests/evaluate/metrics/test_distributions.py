"""Tests of FID's network and formula against pytorch-fid's values, of KID against its definition, and of
patches against HiFiC."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metric_helpers import feature_set, picture, random_state
from sprdiff.errors import ImageError, WeightsError
from sprdiff.evaluate.metrics import inception
from sprdiff.evaluate.metrics.distributions import MIN_PATCHES, TooFewPatchesError, fid, hific_patches, kid
from sprdiff.evaluate.metrics.inception import DIMENSIONS, Inception

DATA = Path(__file__).parents[2] / "data"
REFERENCES: dict[str, Any] = json.loads((DATA / "metric_references.json").read_text("utf-8"))
SEED: int = REFERENCES["seed"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def network() -> Inception:
    return Inception(random_state(inception.shapes(), SEED))


# The network


@pytest.mark.parametrize("case", range(3))
def test_inception_agrees_with_pytorch_fid(network: Inception, case: int) -> None:
    reference = REFERENCES["inception"][case]
    image = picture(reference["height"], reference["width"], reference["seed"])
    features = network.features(image[None])
    assert features.shape == (1, DIMENSIONS)
    expected = np.array(reference["features"])
    kept = features[0, :: reference["every"]]
    np.testing.assert_allclose(kept, expected, rtol=TOLERANCE, atol=TOLERANCE * expected.max() / 100)


def test_features_of_an_image_do_not_depend_on_the_batch(network: Inception) -> None:
    image = np.concatenate([picture(256, 640, 1), picture(256, 640, 2)])  # 4 patches, and 2 between
    features = network.patch_features(image)
    assert features.shape == (6, DIMENSIONS)
    assert features.dtype == np.float32
    last = np.ascontiguousarray(image[128:384, 384:640])[None]
    np.testing.assert_allclose(features[5], network.features(last)[0], rtol=1e-4, atol=1e-6)


def test_more_images_than_a_batch(network: Inception, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([picture(75, 75, seed) for seed in range(3)])
    whole = network.features(images)
    monkeypatch.setattr(inception, "_BATCH", 2)
    np.testing.assert_allclose(network.features(images), whole, rtol=1e-4, atol=1e-6)


def test_inception_has_as_many_parameters_as_published() -> None:
    # Keras' InceptionV3 without its top has no scale in its batch normalisations.
    counted = sum(
        int(np.prod(shape)) for name, shape in inception.shapes().items() if not name.endswith("bn.weight")
    )
    assert counted == 21_802_784


def test_inception_refuses_other_images_and_weights(network: Inception) -> None:
    image = picture(80, 80, 0)
    for bad in (image, image[None].astype(np.float32), image[None, ..., :1], image[None, :0]):
        with pytest.raises(ImageError, match="uint8 RGB"):
            network.features(bad)  # type: ignore[arg-type]
    with pytest.raises(
        WeightsError, match=r"Inception V3: Conv2d_1a_3x3\.conv\.weight must be \[32, 3, 3, 3\]"
    ):
        Inception({"Conv2d_1a_3x3.conv.weight": np.zeros((32, 3, 5, 5), np.float32)})


# Patches


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [
        (256, 256, 1),
        (383, 900, 3),
        (384, 384, 1 + 1),
        (511, 768, 3 + 2),
        (640, 512, 4 + 2),
        (512, 768, 6 + 2),
    ],
)
def test_patches_are_counted_as_in_hific(height: int, width: int, count: int) -> None:
    # The last is a picture of Kodak: 24 of them give the 192 patches that HiFiC states.
    assert len(hific_patches(np.zeros((height, width, 3), np.uint8))) == count


def test_patches_are_cut_from_both_grids_in_raster_order() -> None:
    image = picture(530, 780, 3)
    corners = [(0, 0), (0, 256), (0, 512), (256, 0), (256, 256), (256, 512), (128, 128), (128, 384)]
    expected = np.stack([image[y : y + 256, x : x + 256] for y, x in corners])
    np.testing.assert_array_equal(hific_patches(image), expected)


def test_patches_refuse_small_and_grey_images() -> None:
    with pytest.raises(ImageError, match="at least 256"):
        hific_patches(np.zeros((255, 300, 3), np.uint8))
    with pytest.raises(ImageError, match="RGB"):
        hific_patches(np.zeros((256, 256, 1), np.uint8))


# FID


@pytest.mark.parametrize("case", range(2))
def test_fid_agrees_with_pytorch_fid(case: int) -> None:
    reference = REFERENCES["fid"][case]
    a = feature_set(reference["rows_a"], reference["dimensions"], "a", reference["seed"])
    b = feature_set(reference["rows_b"], reference["dimensions"], "b", reference["seed"])
    assert fid(a, b) == pytest.approx(reference["value"], rel=1e-6)


def test_fid_refuses_few_patches_and_points_to_kid() -> None:
    enough, few = np.zeros((MIN_PATCHES, 2), np.float32), np.zeros((MIN_PATCHES - 1, 2), np.float32)
    for a, b in ((enough, few), (few, enough)):
        with pytest.raises(TooFewPatchesError, match=r"at least 5000 patches.*KID"):
            fid(a, b)


# KID


def kid_by_definition(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Return the unbiased estimate of Bińkowski et al., computed in loops over pairs."""

    def mean(pairs: list[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> float:
        return float(np.mean([(float(p @ q) / len(p) + 1.0) ** 3 for p, q in pairs]))

    within = [mean(list(itertools.permutations(rows, 2))) for rows in (x, y)]
    return sum(within) - 2.0 * mean(list(itertools.product(x, y)))


def sets(rows_a: int, rows_b: int, dimensions: int = 6) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = feature_set(rows_a, dimensions, "a", 1), feature_set(rows_b, dimensions, "b", 1)
    return a.astype(np.float64), b.astype(np.float64)


@pytest.mark.parametrize(("rows_a", "rows_b"), [(2, 2), (9, 9), (7, 12)])
def test_kid_follows_its_definition(rows_a: int, rows_b: int) -> None:
    a, b = sets(rows_a, rows_b)
    assert kid(a, b) == pytest.approx(kid_by_definition(a, b))
    assert kid(a, b) == pytest.approx(kid(b, a))


def test_kid_in_strips_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sets(40, 50)
    whole = kid(a, b)
    monkeypatch.setattr("sprdiff.evaluate.metrics.distributions._ROWS", 7)
    assert kid(a, b) == pytest.approx(whole)


def test_kid_is_the_mean_over_all_subsets() -> None:
    a, b = sets(6, 6)
    subsets = [list(chosen) for chosen in itertools.combinations(range(6), 3)]
    values = [kid(a[p], b[q]) for p in subsets for q in subsets]
    assert kid(a, b) == pytest.approx(float(np.mean(values)))
    assert np.std(values) > 0.01 * abs(kid(a, b))


def test_kid_is_unbiased_at_small_numbers() -> None:
    # Halves of one set: around zero at any size, where the biased estimate would stay far above it.
    whole = feature_set(4000, 16, "one", 2)
    values = [kid(part[:20], part[20:]) for part in whole.reshape(100, 40, 16)]
    assert abs(np.mean(values)) < 3.0 * np.std(values) / 10.0
    assert min(values) < 0.0 < max(values)


def test_kid_refuses_what_is_not_two_sets_of_features() -> None:
    a, b = sets(4, 4)
    for bad in (b[:1], b[:, :-1], b[0]):
        with pytest.raises(ImageError, match="features"):
            kid(a, bad)
    with pytest.raises(ImageError, match="finite"):
        kid(a, b * np.nan)
