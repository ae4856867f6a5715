"""Feature distance and Fréchet distance of patches, both on SqueezeNet 1.1 (torch is imported on first use).

::

    BGR less mean ─ conv1 ─┬─ pool ─ fire2 ─ fire3 ─┬─ pool ─ fire4 ─ fire5 ─┬─ pool ─ fire6 ─┬─ … fire9 ─┐
                         tap 1                    tap 2                    tap 3            tap 4 …    tap 7

    feature distance, two images:    all seven taps, channels scaled to unit length, squared difference
    Fréchet distance, sets of crops: tap 7 averaged over each 128x128 crop, one Gaussian per set

The network is the one that DeepCognition/keras-squeezenet publishes (Iandola et al. 2016, trained in Caffe on
ImageNet). No layer is calibrated against human judgements: this is a metric, and not LPIPS.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sprdiff.common.messages import reason
from sprdiff.errors import ImageError, WeightsError
from sprdiff.evaluate.metrics.distortion import Bytes, Floats, check_pair
from sprdiff.evaluate.metrics.tensors import Array, Features, check_rgb, need, parameters, unit_channels

if TYPE_CHECKING:
    from torch import Tensor

CROP = 128
STRIDE = 64
DIMENSIONS = 512
MIN_SIDE = 32
"""Smallest side of an image for the feature distance, in pixels."""
MIN_CROPS = DIMENSIONS + 1
"""Fewest crops per set for which both covariances can have full rank. Fréchet distances of different
numbers of crops do not compare: the bias falls as the number grows."""

_MEAN_BGR = (104.006, 116.669, 122.679)
_BATCH = 32
_TAPS_AFTER = ("conv1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")
_POOLS_AFTER = ("conv1", "fire3", "fire5")
_FIRES = dict(enumerate([(16, 64)] * 2 + [(32, 128)] * 2 + [(48, 192)] * 2 + [(64, 256)] * 2, start=2))
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


class FeatureNetwork:
    """SqueezeNet 1.1 up to fire9, for measuring only.

    Args:
        arrays: ``conv1.{weight,bias}`` and ``fireN.{squeeze1x1,expand1x1,expand3x3}.{weight,bias}``, N = 2…9;
            weights [out, in, height, width].

    Raises:
        WeightsError: an array is missing or has another shape.
        SprdiffError: torch is not installed.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._parameters = parameters(arrays, _shapes(), "feature network")

    @classmethod
    def load(cls, path: str | Path) -> FeatureNetwork:
        """Read the weights from keras-squeezenet's HDF5 file (needs h5py) or an ``.npz`` of the arrays above.

        Raises:
            WeightsError: the file cannot be read or does not hold this network.
            SprdiffError: torch or h5py is not installed.
        """
        try:
            with open(path, "rb") as file:
                is_hdf5 = file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
            return cls(_read_hdf5(path) if is_hdf5 else _read_npz(path))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise WeightsError(f"cannot read feature network {path}: {reason(error)}") from error

    def feature_distance(self, a: Bytes, b: Bytes) -> float:
        """Return the distance of two images on the network, 0 (identical) to 14; smaller is better.

        At each of the seven taps the channels of every position are scaled to unit length; their squared
        differences are summed over channels and averaged over positions; the taps count equally.

        Args:
            a, b: uint8 RGB [H, W, 3], both sides at least ``MIN_SIDE`` pixels.

        Raises:
            ImageError: other types, different shapes, or too small.
        """
        check_pair(a, b)
        check_rgb(a, MIN_SIDE)
        with _exactly():
            # One image after the other: half the memory of a batch of two.
            taps = zip(self._taps(_input(a[None])), self._taps(_input(b[None])), strict=True)
            return float(
                sum((unit_channels(p) - unit_channels(q)).square().sum(1).mean().double() for p, q in taps)
            )

    def patch_features(self, image: Bytes) -> Features:
        """Return the raw features float32 [N, 512] of all 128x128 crops, stride 64, raster order, each run by
        itself.

        An incomplete crop at the right or lower edge is left out.

        Args:
            image: uint8 RGB [H, W, 3], both sides at least 128 pixels.

        Raises:
            ImageError: other types, or too small.
        """
        check_pair(image, image)
        check_rgb(image, CROP)
        with _exactly():
            parts = [self._last(_input(batch)).mean((2, 3)).numpy() for batch in _crops(image)]
        return np.concatenate(parts)

    def _last(self, x: Tensor) -> Tensor:
        *_, last = self._taps(x)
        return last

    def _taps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the seven taps [N, C, H, W], after the ReLU and before the pooling, one at a time."""
        pool = need("torch").nn.functional.max_pool2d
        x = self._convolve("conv1", x, stride=2)
        for name in ("conv1", *(f"fire{n}" for n in _FIRES)):
            if name != "conv1":
                x = self._fire(name, x)
            if name in _TAPS_AFTER:
                yield x
            if name in _POOLS_AFTER:
                x = pool(x, 3, 2, ceil_mode=True)

    def _fire(self, name: str, x: Tensor) -> Tensor:
        x = self._convolve(f"{name}.squeeze1x1", x)
        wide = self._convolve(f"{name}.expand3x3", x, padding=1)
        joined: Tensor = need("torch").cat([self._convolve(f"{name}.expand1x1", x), wide], 1)
        return joined

    def _convolve(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
        y: Tensor = need("torch").nn.functional.conv2d(x, weight, bias, stride, padding)
        return y.relu_()


@contextmanager
def _exactly() -> Iterator[None]:
    """Compute without gradients, and in float32 even where the caller runs under autocast, as validation in
    training does."""
    torch = need("torch")
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        yield


def frechet_distance(a: Features | Floats, b: Features | Floats) -> float:
    """Return the Fréchet distance of the Gaussians fitted to two sets of features (Heusel et al., NeurIPS
    2017).

    ``|mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2))`` with full covariances A and B (divided by n - 1).

    Args:
        a, b: [N, D] and [M, D], at least two rows each; the counts may differ.

    Raises:
        ImageError: other shapes, or values that are not finite.
    """
    x, y = feature_sets(a, b)
    shift = x.mean(0) - y.mean(0)
    cov_a, cov_b = _covariance(x), _covariance(y)
    # A B has the eigenvalues of the symmetric A^(1/2) B A^(1/2): real and, but for rounding, not negative.
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root @ cov_b @ root
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2.0), 0.0)).sum()
    distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2.0 * overlap
    return max(0.0, float(distance))


def feature_sets(a: Features | Floats, b: Features | Floats) -> tuple[Floats, Floats]:
    """Return both sets [N, D] and [M, D] in float64.

    Raises:
        ImageError: other shapes, fewer than two rows, or values that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ImageError(f"expected features [N, D] and [M, D], got {list(a.shape)} and {list(b.shape)}")
    x, y = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ImageError("features hold values that are not finite")
    return x, y


def _covariance(x: Floats) -> Floats:
    centred = x - x.mean(0)
    return np.asarray(centred.T @ centred / (len(x) - 1))


def _crops(image: Bytes) -> Iterator[Bytes]:
    """Yield batches uint8 [n, 128, 128, 3] of the crops in raster order."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (CROP, CROP), axis=(0, 1))[::STRIDE, ::STRIDE]
    rows, columns = windows.shape[:2]
    for start in range(0, rows * columns, _BATCH):
        index = np.arange(start, min(start + _BATCH, rows * columns))
        yield windows[index // columns, index % columns].transpose(0, 2, 3, 1)


def _input(pixels: Bytes) -> Tensor:
    """Turn uint8 RGB [N, H, W, 3] into the network's input: float32 [N, 3, H, W], BGR, 0-255, less the
    mean."""
    bgr = pixels[..., ::-1].astype(np.float32) - np.asarray(_MEAN_BGR, np.float32)
    tensor: Tensor = need("torch").from_numpy(np.ascontiguousarray(bgr.transpose(0, 3, 1, 2)))
    return tensor


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all parameters, in order."""
    kernels: dict[str, tuple[int, ...]] = {"conv1": (64, 3, 3, 3)}
    channels = 64
    for n, (squeeze, expand) in _FIRES.items():
        kernels[f"fire{n}.squeeze1x1"] = (squeeze, channels, 1, 1)
        kernels[f"fire{n}.expand1x1"] = (expand, squeeze, 1, 1)
        kernels[f"fire{n}.expand3x3"] = (expand, squeeze, 3, 3)
        channels = 2 * expand
    weights = {f"{name}.weight": shape for name, shape in kernels.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in kernels.items()}


def _read_npz(path: str | Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz file")
        return dict(file.items())


def _read_hdf5(path: str | Path) -> dict[str, Array]:
    """Read the arrays of Keras' file, where datasets are called ``fire2/squeeze1x1/…/uniform2``: folders name
    the layer, and the rank tells weight from bias."""
    arrays: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if not hasattr(item, "shape"):
            return
        folders = name.split("/")
        layer = ".".join(folders[: 1 if folders[0] == "conv1" else 2])
        if item.ndim == 4:
            arrays[f"{layer}.weight"] = np.asarray(item).transpose(3, 2, 0, 1)  # HWIO -> OIHW
        elif item.ndim == 1:
            arrays[f"{layer}.bias"] = np.asarray(item)

    with need("h5py").File(path, "r") as file:
        file.visititems(visit)
    return arrays
