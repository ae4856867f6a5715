"""Tests of LPIPS and DISTS against the values of the reference packages, on random weights from seeds.

The published weights are not part of the repository; `scripts/make_metric_references.py` made the values.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metric_helpers import Floats, pair, picture, random_state
from sprdiff.errors import ImageError, WeightsError
from sprdiff.evaluate.metrics.perceptual import ALEXNET, MIN_SIDE, VGG16, Architecture, Dists, Lpips, Net

DATA = Path(__file__).parents[2] / "data"
REFERENCES: dict[str, Any] = json.loads((DATA / "metric_references.json").read_text("utf-8"))
SEED: int = REFERENCES["seed"]
ARCHITECTURES: dict[Net, Architecture] = {"alex": ALEXNET, "vgg": VGG16}
TOLERANCE = 1e-4
DISTS_SHAPES = {"alpha": (1, 1475, 1, 1), "beta": (1, 1475, 1, 1)}


def random_heads(net: Net) -> dict[str, Floats]:
    channels = ARCHITECTURES[net].channels
    return random_state({f"lin{n}.model.1.weight": (1, c, 1, 1) for n, c in enumerate(channels)}, SEED)


@pytest.fixture(scope="module")
def vgg16() -> dict[str, Floats]:
    return random_state(VGG16.shapes, SEED)


@pytest.fixture(scope="module")
def lpips(vgg16: dict[str, Floats]) -> dict[Net, Lpips]:
    alexnet = random_state(ALEXNET.shapes, SEED)
    return {
        "alex": Lpips("alex", alexnet, random_heads("alex")),
        "vgg": Lpips("vgg", vgg16, random_heads("vgg")),
    }


@pytest.fixture(scope="module")
def dists(vgg16: dict[str, Floats]) -> Dists:
    return Dists(vgg16, random_state(DISTS_SHAPES, SEED))


@pytest.mark.parametrize("net", ARCHITECTURES)
@pytest.mark.parametrize("case", range(3))
def test_lpips_agrees_with_the_reference_package(lpips: dict[Net, Lpips], net: Net, case: int) -> None:
    reference = REFERENCES[f"lpips_{net}"][case]
    a, b = pair(reference["height"], reference["width"], reference["seed"])
    assert lpips[net].distance(a, b) == pytest.approx(reference["value"], rel=TOLERANCE)


@pytest.mark.parametrize("case", range(3))
def test_dists_agrees_with_the_reference_package(dists: Dists, case: int) -> None:
    reference = REFERENCES["dists"][case]
    a, b = pair(reference["height"], reference["width"], reference["seed"])
    assert dists.distance(a, b) == pytest.approx(reference["value"], rel=TOLERANCE)


def test_identity_symmetry_and_order(lpips: dict[Net, Lpips], dists: Dists) -> None:
    a, b = pair(64, 72, 5)
    metrics: list[Lpips | Dists] = [*lpips.values(), dists]
    for metric in metrics:
        assert metric.distance(a, a.copy()) == pytest.approx(0.0, abs=1e-6)
        assert metric.distance(a, b) == pytest.approx(metric.distance(b, a), rel=1e-5)
        assert 0.0 < metric.distance(a, b) < metric.distance(a, 255 - a)


def test_the_smallest_image_and_one_pixel_less(lpips: dict[Net, Lpips], dists: Dists) -> None:
    a, b = pair(MIN_SIDE, MIN_SIDE + 1, 6)
    metrics: list[Lpips | Dists] = [*lpips.values(), dists]
    for metric in metrics:
        assert np.isfinite(metric.distance(a, b))
        with pytest.raises(ImageError, match=f"at least {MIN_SIDE}"):
            metric.distance(a[1:], b[1:])


def test_images_must_be_uint8_rgb_of_one_shape(lpips: dict[Net, Lpips], dists: Dists) -> None:
    a, b = pair(48, 48, 7)
    metrics: list[Lpips | Dists] = [lpips["alex"], dists]
    for metric in metrics:
        with pytest.raises(ImageError, match="different shapes"):
            metric.distance(a, b[:, :-1])
        with pytest.raises(ImageError, match="uint8"):
            metric.distance(a.astype(np.float32), b.astype(np.float32))
        with pytest.raises(ImageError, match="RGB"):
            metric.distance(a[..., :1], b[..., :1])


def test_parameters_are_as_many_as_published() -> None:
    # torchvision's AlexNet without classifier, and the VGG16 of the paper likewise.
    counts = [sum(int(np.prod(shape)) for shape in net.shapes.values()) for net in (ALEXNET, VGG16)]
    assert counts == [2_469_696, 14_714_688]


def test_only_the_convolutions_of_a_backbone_are_read() -> None:
    backbone = random_state(ALEXNET.shapes, SEED) | {"classifier.1.weight": np.zeros((2, 2), np.float32)}
    a, b = pair(48, 48, 8)
    assert Lpips("alex", backbone, random_heads("alex")).distance(a, b) > 0.0


def test_bad_weights_are_named(vgg16: dict[str, Floats]) -> None:
    backbone = random_state(ALEXNET.shapes, SEED)
    with pytest.raises(WeightsError, match=r"AlexNet: features\.3\.bias must be \[192\], found nothing"):
        Lpips("alex", {k: v for k, v in backbone.items() if k != "features.3.bias"}, random_heads("alex"))
    with pytest.raises(
        WeightsError, match=r"LPIPS heads for AlexNet: lin1.* \[1, 192, 1, 1\], found \[1, 128, 1, 1\]"
    ):
        Lpips("alex", backbone, random_heads("vgg"))
    weights = random_state(DISTS_SHAPES, SEED)
    with pytest.raises(WeightsError, match="DISTS: beta"):
        Dists(vgg16, {"alpha": weights["alpha"], "beta": weights["beta"][:, 1:]})
    with pytest.raises(WeightsError, match="positive sum"):
        Dists(vgg16, {name: 0.0 * array for name, array in weights.items()})


def test_arrays_of_the_caller_are_copied() -> None:
    backbone, heads = random_state(ALEXNET.shapes, SEED), random_heads("alex")
    metric = Lpips("alex", backbone, heads)
    a, b = pair(48, 48, 9)
    before = metric.distance(a, b)
    for array in (*backbone.values(), *heads.values()):
        array[:] = 0.0
    assert metric.distance(a, b) == before


def test_modules_are_imported_without_torch() -> None:
    modules = "from sprdiff.evaluate.metrics import inception, perceptual"
    code = f"import sys; {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pictures_of_the_references_are_the_same_everywhere() -> None:
    assert picture(2, 2, 0).flatten().tolist() == [190, 161, 68, 189, 130, 109, 165, 168, 113, 176, 132, 74]
