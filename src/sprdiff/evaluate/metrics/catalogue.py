"""The metrics of a comparison: name, unit, direction, source, and how each is computed.

Image metrics compare one decoded image with its original. Set metrics compare the features of patches of all
decoded images with those of all originals. A metric whose package or weights are missing is left out, with
the reason.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ...common.extras import hint
from ...common.files import read_bytes
from ...errors import SprdiffError, WeightsError
from ..results import MetricInfo, Skipped
from . import backbones, inception
from .distortion import Bytes, ms_ssim, psnr
from .distributions import PATCH, fid, kid
from .features import MIN_CROPS, FeatureNetwork, frechet_distance
from .perceptual import Dists, Lpips, Net
from .tensors import Features, need

Distance = Callable[[Bytes, Bytes], float]
Describe = Callable[[Bytes], Features]


@dataclass(frozen=True)
class Weights:
    """The user's weights for measuring: the file of SqueezeNet, and a folder of published ones; None:
    there are none."""

    features: Path | None = None
    published: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """What a metric is, and what it needs.

    Attributes:
        name: its key in `results.Row.metrics`.
        title: its name for readers.
        unit: its unit; empty if it has none.
        direction: ``up`` if larger is better, else ``down``.
        source: the publication and the implementation.
        packages: the modules that it needs.
        published: the names in `backbones.PUBLISHED` of the weights that it needs.
        squeezenet: whether it needs ``--features``.
    """

    name: str
    title: str
    unit: str = ""
    direction: Literal["up", "down"]
    source: str
    packages: tuple[str, ...] = ("torch",)
    published: tuple[str, ...] = ()
    squeezenet: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageMetric(_Needs):
    """An image metric.

    Attributes:
        load: returns a function of the original and the decoded image, both uint8 RGB [H, W, 3].
    """

    load: Callable[[Weights], Distance]


@dataclass(frozen=True, kw_only=True)
class SetMetric(_Needs):
    """A set metric.

    Attributes:
        network: the network that describes patches; metrics of one network share the features.
        load: returns a function from an image to the features [N, D] of its patches.
        distance: the distance of two sets of features, originals first; an `SprdiffError` if they are too
            few.
    """

    network: str
    load: Callable[[Weights], Describe]
    distance: Callable[[Features, Features], float]


@cache
def _squeezenet(path: Path) -> FeatureNetwork:
    return FeatureNetwork.load(path)


def _feature_distance(weights: Weights) -> Distance:
    assert weights.features is not None
    return _squeezenet(weights.features).feature_distance


def _squeezenet_patches(weights: Weights) -> Describe:
    assert weights.features is not None
    return _squeezenet(weights.features).patch_features


@cache
def _inception_patches(weights: Weights) -> Describe:
    network = inception.Inception.load(weights.published)

    def describe(image: Bytes) -> Features:
        if min(image.shape[:2]) < PATCH:
            return np.zeros((0, inception.DIMENSIONS), np.float32)
        return network.patch_features(image)

    return describe


def _lpips(net: Net) -> Callable[[Weights], Distance]:
    return lambda weights: Lpips.load(net, weights.published).distance


def _ssimulacra2(weights: Weights) -> Distance:
    compute = need("ssimulacra2").compute_ssimulacra2
    return lambda original, decoded: float(compute(_file(original), _file(decoded)))


def _file(pixels: Bytes) -> io.BytesIO:
    """Return the image as a PPM file, which is the fastest format; the package takes files only."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PPM")
    stream.seek(0)
    return stream


def _frechet_of_crops(a: Features, b: Features) -> float:
    if min(len(a), len(b)) < MIN_CROPS:
        raise SprdiffError(f"needs at least {MIN_CROPS} crops, has {min(len(a), len(b))}")
    return frechet_distance(a, b)


_LPIPS: tuple[tuple[Net, str, str, str], ...] = (
    ("alex", "Alex", "AlexNet", "alexnet"),
    ("vgg", "VGG", "VGG16", "vgg16"),
)
_NO_HUMANS = "the network of DeepCognition/keras-squeezenet, uncalibrated: not LPIPS, not FID"
IMAGE_METRICS = (
    ImageMetric(
        name="psnr",
        title="PSNR",
        unit="dB",
        direction="up",
        source="over all pixels and RGB channels at once",
        load=lambda _: psnr,
        packages=(),
    ),
    ImageMetric(
        name="ms_ssim",
        title="MS-SSIM",
        direction="up",
        source="Wang, Simoncelli, Bovik, Asilomar 2003; with the choices of pytorch-msssim",
        load=lambda _: ms_ssim,
        packages=(),
    ),
    ImageMetric(
        name="ssimulacra2",
        title="SSIMULACRA2",
        direction="up",
        source="Sneyers, Cloudinary 2022; package ssimulacra2",
        load=_ssimulacra2,
        packages=("ssimulacra2",),
    ),
    *(
        ImageMetric(
            name=f"lpips_{net}",
            title=f"LPIPS ({short})",
            direction="down",
            source=f"Zhang et al., CVPR 2018, v0.1 on torchvision's {full}",
            load=_lpips(net),
            published=(backbone, f"lpips_{net}"),
        )
        for net, short, full, backbone in _LPIPS
    ),
    ImageMetric(
        name="dists",
        title="DISTS",
        direction="down",
        source="Ding et al., TPAMI 2022, on torchvision's VGG16",
        load=lambda weights: Dists.load(weights.published).distance,
        published=("vgg16", "dists"),
    ),
    ImageMetric(
        name="feature_distance",
        title="feature distance",
        direction="down",
        source=f"SqueezeNet 1.1, seven taps with equal weight; {_NO_HUMANS}",
        load=_feature_distance,
        squeezenet=True,
    ),
)
"""The image metrics in the order of tables."""

SET_METRICS = (
    SetMetric(
        name="frechet_squeezenet",
        title="Fréchet distance (SqueezeNet)",
        direction="down",
        source=f"Gaussians of SqueezeNet 1.1's last tap over 128x128 crops, stride 64; {_NO_HUMANS}",
        network="squeezenet",
        load=_squeezenet_patches,
        distance=_frechet_of_crops,
        squeezenet=True,
    ),
    *(
        SetMetric(
            name=name,
            title=name.upper(),
            direction="down",
            source=f"{source}; HiFiC's 256x256 patches",
            network="inception",
            load=_inception_patches,
            distance=distance,
            published=("inception",),
        )
        for name, source, distance in (
            ("kid", "Bińkowski et al., ICLR 2018, on FID's Inception", kid),
            ("fid", "Heusel et al., NeurIPS 2017, as pytorch-fid 0.3.0", fid),
        )
    ),
)


def choose(weights: Weights) -> tuple[list[MetricInfo], list[Skipped]]:
    """Return the metrics that can be used here, in order, and those that cannot, with the reason.

    Raises:
        WeightsError: the given file for SqueezeNet cannot be used.
    """
    if weights.features is not None and not _absent("torch"):
        _squeezenet(weights.features)
    infos, skipped = [], []
    for metric in (*IMAGE_METRICS, *SET_METRICS):
        try:
            infos.append(_describe(metric, weights))
        except SprdiffError as error:
            skipped.append(Skipped(metric.name, str(error)))
    return infos, skipped


def _describe(metric: _Needs, weights: Weights) -> MetricInfo:
    """Return the description for ``run.json``; an `SprdiffError` says why the metric cannot be used."""
    for package in metric.packages:
        if _absent(package):
            raise SprdiffError(f"needs {package}: {hint('eval')}")
    if metric.squeezenet and weights.features is None:
        raise SprdiffError("needs SqueezeNet 1.1: --features FILE")
    paths = [_found(name, weights.published) for name in metric.published]
    if metric.squeezenet and weights.features is not None:
        paths.append((weights.features.name, _digest(weights.features)))
    source = metric.source
    if "ssimulacra2" in metric.packages:
        source += f" {version('ssimulacra2')}"
    text = ", ".join(f"{name} {digest}" for name, digest in paths) or None
    scope: Literal["image", "set"] = "image" if isinstance(metric, ImageMetric) else "set"
    return MetricInfo(metric.name, metric.title, metric.unit, metric.direction, source, scope, text)


@cache
def _found(name: str, folder: Path | None) -> tuple[str, str]:
    """Return the file name and the SHA-256; the result is kept, because several metrics share half a
    gigabyte of VGG16."""
    path = backbones.find(name, folder)
    return path.name, _digest(path)


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, WeightsError)).hexdigest()


def _absent(package: str) -> bool:
    return importlib.util.find_spec(package) is None


class Meter:
    """The metrics of one process; each is loaded once.

    Args:
        names: the names of the metrics, as `choose` returned them.
        weights: the argument of `choose`.
    """

    def __init__(self, names: Sequence[str], weights: Weights) -> None:
        if any(
            "torch" in metric.packages for metric in (*IMAGE_METRICS, *SET_METRICS) if metric.name in names
        ):
            need("torch").set_num_threads(1)
        self._distances = {
            metric.name: metric.load(weights) for metric in IMAGE_METRICS if metric.name in names
        }
        self._networks = {
            metric.network: metric.load(weights) for metric in SET_METRICS if metric.name in names
        }

    def figures(self, original: Bytes, decoded: Bytes, known: Mapping[str, float]) -> dict[str, float]:
        """Return all image metrics of two images, uint8 RGB [H, W, 3]; those that are `known` are not
        computed again."""
        return {
            name: known[name] if name in known else distance(original, decoded)
            for name, distance in self._distances.items()
        }

    @property
    def describes_patches(self) -> bool:
        """Whether a set metric is in use."""
        return bool(self._networks)

    def patches(self, image: Bytes) -> dict[str, Features]:
        """Return the features [N, D] of the patches of an image, by network."""
        return {network: describe(image) for network, describe in self._networks.items()}
