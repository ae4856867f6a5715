"""Tests of figures of pairs: they equal those of the metrics, on whichever network is given."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from conftest import photo
from sprdiff.errors import ImageError, WeightsError
from sprdiff.evaluate.metrics.distortion import Bytes, ms_ssim, psnr
from sprdiff.evaluate.metrics.features import CROP, MIN_CROPS, FeatureNetwork, _shapes, frechet_distance
from sprdiff.evaluate.metrics.tensors import Features
from sprdiff.evaluate.pairs import Pairs

PICTURES = [(photo(192, 256, seed=i), photo(192, 256, seed=10 + i)) for i in range(2)]


class Means:
    """A network of the user: the mean colours of crops."""

    def feature_distance(self, a: Bytes, b: Bytes) -> float:
        return float(abs(a.mean() - b.mean()))

    def patch_features(self, image: Bytes) -> Features:
        crops = [image[y : y + CROP, x : x + CROP] for y in range(0, 65, 2) for x in range(0, 129, 8)]
        return np.array([crop.mean((0, 1)) for crop in crops], np.float32)


def filled(pairs: Pairs) -> dict[str, float]:
    for original, decoded in PICTURES:
        pairs.add(original, decoded)
    return pairs.means()


def test_without_a_network() -> None:
    assert Pairs().means() == {}
    assert filled(Pairs()) == {
        "psnr": fmean(psnr(*pair) for pair in PICTURES),
        "ms_ssim": fmean(ms_ssim(*pair) for pair in PICTURES),
    }


def test_with_a_network_of_the_callers_own() -> None:
    found, network = filled(Pairs(Means())), Means()
    assert found["feature_distance"] == fmean(network.feature_distance(*pair) for pair in PICTURES)
    originals, decoded = (
        np.concatenate([network.patch_features(pair[i]) for pair in PICTURES]) for i in (0, 1)
    )
    assert len(originals) >= MIN_CROPS and found["frechet"] == frechet_distance(originals, decoded) > 0


def test_with_the_file_of_the_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {k: rng.normal(0, 0.1, v).astype(np.float32) for k, v in _shapes().items()}
    np.savez(tmp_path / "net.npz", **arrays)
    found, metric = filled(Pairs(tmp_path / "net.npz")), FeatureNetwork.load(tmp_path / "net.npz")
    assert found["feature_distance"] == pytest.approx(
        fmean(metric.feature_distance(*pair) for pair in PICTURES)
    )
    assert "frechet" not in found, "a dozen crops are too few"


def test_what_cannot_be_measured() -> None:
    with pytest.raises(WeightsError, match=r"nothing\.h5"):
        Pairs(Path("nothing.h5"))
    with pytest.raises(ImageError):
        Pairs().add(photo(192, 256), photo(192, 200))
