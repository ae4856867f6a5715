"""Tests of the metrics of a comparison: which there are, which can be used, and the figures of sets."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from conftest import photo
from eval_helpers import a_row, a_run
from sprdiff.errors import WeightsError
from sprdiff.evaluate.metrics import catalogue
from sprdiff.evaluate.metrics.catalogue import (
    IMAGE_METRICS,
    SET_METRICS,
    ImageMetric,
    Meter,
    SetMetric,
    Weights,
    choose,
)
from sprdiff.evaluate.metrics.distortion import ms_ssim, psnr
from sprdiff.evaluate.metrics.distributions import kid
from sprdiff.evaluate.metrics.features import MIN_CROPS, FeatureNetwork, _shapes, frechet_distance
from sprdiff.evaluate.metrics.tensors import Features
from sprdiff.evaluate.results import CodecInfo, ImageInfo, MetricInfo, SetRow, member
from sprdiff.evaluate.run.sets import set_rows
from sprdiff.evaluate.run.unit import original_features, save_features
from sprdiff.evaluate.targets import Target

NETWORK = "needs SqueezeNet 1.1: --features FILE"
PICTURE = photo(180, 190)
OTHER = photo(180, 190, seed=1)


@pytest.fixture(autouse=True)
def no_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    catalogue._found.cache_clear()


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write random weights of SqueezeNet."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("squeezenet") / "network.npz"
    arrays: dict[str, Any] = {n: rng.normal(0, 0.1, s).astype(np.float32) for n, s in _shapes().items()}
    np.savez(path, **arrays)
    return path


def test_names_are_unique_and_described() -> None:
    everything: list[ImageMetric | SetMetric] = [*IMAGE_METRICS, *SET_METRICS]
    names = [metric.name for metric in everything]
    assert len(set(names)) == len(names)
    assert all(metric.title and metric.source for metric in everything)
    # What published tables call LPIPS, FID and KID needs the published weights.
    assert all(
        metric.published for metric in everything if metric.name.startswith(("lpips", "dists", "fid", "kid"))
    )
    assert [metric.name for metric in everything if metric.squeezenet] == [
        "feature_distance",
        "frechet_squeezenet",
    ]


def test_without_weights(tmp_path: Path) -> None:
    infos, skipped = choose(Weights())
    assert [info.name for info in infos] == ["psnr", "ms_ssim", "ssimulacra2"]
    assert [info.direction for info in infos] == ["up"] * 3
    assert infos[2].source.startswith("Sneyers") and infos[2].source[-1].isdigit()  # the package's version
    reasons = {entry.name: entry.reason for entry in skipped}
    assert reasons["feature_distance"] == reasons["frechet_squeezenet"] == NETWORK
    for name in ("lpips_alex", "lpips_vgg", "dists", "kid", "fid"):
        assert "not found: fetch it from https://" in reasons[name]
    assert len(infos) + len(skipped) == len(IMAGE_METRICS) + len(SET_METRICS)


def test_without_packages(monkeypatch: pytest.MonkeyPatch, squeezenet: Path) -> None:
    absent = {"torch", "ssimulacra2"}
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    infos, skipped = choose(Weights(features=squeezenet))
    assert [info.name for info in infos] == ["psnr", "ms_ssim"]
    assert {entry.reason for entry in skipped} == {
        f"needs {name}: pip install 'sprdiff[eval]'" for name in ("torch", "ssimulacra2")
    }


def test_weights_are_named_by_their_digest(squeezenet: Path, tmp_path: Path) -> None:
    infos = {info.name: info for info in choose(Weights(features=squeezenet))[0]}
    weights = infos["feature_distance"].weights
    assert weights is not None and weights.startswith("network.npz ") and len(weights.split()[1]) == 64
    assert infos["frechet_squeezenet"].scope == "set" and infos["frechet_squeezenet"].weights == weights
    assert infos["psnr"].weights is None


def test_unusable_squeezenet_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"words")
    with pytest.raises(WeightsError, match=r"w\.h5"):
        choose(Weights(features=tmp_path / "w.h5"))


def test_wrong_published_weights_are_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"words")
    reasons = {entry.name: entry.reason for entry in choose(Weights(published=tmp_path))[1]}
    assert "is not the published alexnet-owt-7be5be79.pth" in reasons["lpips_alex"]


def test_figures(squeezenet: Path) -> None:
    names = ["psnr", "ms_ssim", "ssimulacra2", "feature_distance", "frechet_squeezenet"]
    meter = Meter(names, Weights(features=squeezenet))
    figures = meter.figures(PICTURE, OTHER, {"ms_ssim": 0.125})
    network = FeatureNetwork.load(squeezenet)
    assert list(figures) == names[:4]
    assert figures["psnr"] == psnr(PICTURE, OTHER)
    assert figures["ms_ssim"] == 0.125  # known already: not computed again
    assert figures["feature_distance"] == pytest.approx(network.feature_distance(PICTURE, OTHER))
    assert meter.figures(PICTURE, OTHER, {})["ms_ssim"] == ms_ssim(PICTURE, OTHER)
    assert figures["ssimulacra2"] < 50 < meter.figures(PICTURE, PICTURE, {})["ssimulacra2"] == 100
    patches = meter.patches(PICTURE)
    np.testing.assert_allclose(patches["squeezenet"], network.patch_features(PICTURE))
    assert meter.describes_patches and not Meter(["psnr"], Weights()).describes_patches


class TestSets:
    NAMES = ("frechet_squeezenet", "kid", "fid")
    RUN = a_run(
        images=[ImageInfo("a.png", 9, 9, "0"), ImageInfo("b.png", 9, 9, "1")],
        rates=[0.25, 0.5],
        codecs=[CodecInfo("toy", "1"), CodecInfo("new", "1")],
        metrics=[MetricInfo(name, name, "", "down", "", "set", None) for name in NAMES],
    )
    ROWS = (a_row(), a_row(image="b.png"))

    def features(self, folder: Path, count: int = MIN_CROPS) -> tuple[Features, Features]:
        """Write features of the originals and of one codec at one rate, about half of them from each
        image."""
        rng = np.random.default_rng(3)
        whole = [rng.normal(shift, 1, (count, 8)).astype(np.float32) for shift in (0, 1)]
        for index, image in enumerate(("a.png", "b.png")):
            paths = (
                original_features(folder, image),
                member(folder, "features", "toy", Target(0.5), image, ".npz"),
            )
            for path, features in zip(paths, whole, strict=True):
                part = np.array_split(features, 2)[index]
                save_features(path, {"squeezenet": part, "inception": part})
        return whole[0], whole[1]

    def test_figures(self, tmp_path: Path) -> None:
        original, decoded = self.features(tmp_path)
        (row,) = set_rows(tmp_path, self.RUN, self.ROWS, before=[], changed=[])
        assert (row.codec, row.target_bpp, row.images) == ("toy", 0.5, 2)
        assert row.patches == dict.fromkeys(self.NAMES, MIN_CROPS)
        assert row.metrics["frechet_squeezenet"] == frechet_distance(original, decoded) > 1
        assert row.metrics["kid"] == kid(original, decoded) > 0
        assert row.metrics["fid"] is None and row.notes.keys() == {"fid"}
        assert "at least 5000 patches" in row.notes["fid"]

    def test_only_the_metrics_of_the_run(self, tmp_path: Path) -> None:
        self.features(tmp_path)
        run = replace(self.RUN, metrics=self.RUN.metrics[1:2])
        (row,) = set_rows(tmp_path, run, self.ROWS, before=[], changed=[])
        assert row.metrics.keys() == {"kid"}
        assert set_rows(tmp_path, replace(run, metrics=[]), self.ROWS, before=[], changed=[]) == []

    def test_too_few_crops(self, tmp_path: Path) -> None:
        self.features(tmp_path, MIN_CROPS - 1)
        (row,) = set_rows(tmp_path, self.RUN, self.ROWS, before=[], changed=[])
        assert row.metrics["frechet_squeezenet"] is None and row.metrics["kid"] is not None
        assert row.notes["frechet_squeezenet"] == f"needs at least {MIN_CROPS} crops, has {MIN_CROPS - 1}"

    def test_no_figures_while_images_are_missing(self, tmp_path: Path) -> None:
        self.features(tmp_path)
        rows = (a_row(), a_row(image="b.png", status="unreached"))
        (row,) = set_rows(tmp_path, self.RUN, rows, before=[], changed=[])
        assert row.images == 1 and set(row.metrics.values()) == {None}
        assert set(row.notes.values()) == {"1 of 2 images are missing"}

    def test_lost_features(self, tmp_path: Path) -> None:
        self.features(tmp_path)
        path = member(tmp_path, "features", "toy", Target(0.5), "b.png", ".npz")
        path.write_bytes(path.read_bytes()[:100])
        (row,) = set_rows(tmp_path, self.RUN, self.ROWS, before=[], changed=[])
        assert set(row.metrics.values()) == {None}
        assert set(row.notes.values()) == {f"{path} is missing or damaged"}

    def test_earlier_figures_are_kept_while_nothing_changes(self, tmp_path: Path) -> None:
        self.features(tmp_path)
        before = [SetRow("toy", 0.5, 2, {}, {"kid": -1.0}, {})]
        assert (
            set_rows(tmp_path, self.RUN, self.ROWS, before=before, changed=[("toy", Target(0.25))]) == before
        )
        (new,) = set_rows(tmp_path, self.RUN, self.ROWS, before=before, changed=[("toy", Target(0.5))])
        assert new.metrics["kid"] != -1.0
        # Rows were added, and the run was killed before it wrote figures of sets.
        (new,) = set_rows(tmp_path, self.RUN, self.ROWS, before=[replace(before[0], images=1)], changed=[])
        assert new.metrics["kid"] != -1.0


def test_the_metric_is_the_same_under_autocast(squeezenet: Path) -> None:
    """Validation in training measures while the networks run in bfloat16."""
    torch = pytest.importorskip("torch")
    network = FeatureNetwork.load(squeezenet)
    a, b = photo(140, 130, 1), photo(140, 130, 2)
    wanted = network.feature_distance(a, b), network.patch_features(a)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.feature_distance(a, b) == wanted[0]
        assert np.array_equal(network.patch_features(a), wanted[1])
