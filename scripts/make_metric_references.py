"""Makes reference values of LPIPS, DISTS, FID and its network: ``python scripts/make_metric_references.py
FOLDER``.

FOLDER holds the reference packages, unpacked without what they depend on::

    pip install --no-deps --target FOLDER lpips==0.1.4 DISTS_pytorch==0.1 pytorch-fid==0.3.0

Their code runs as published. Only torchvision, which has no CPU build beside our torch, is replaced by a stub
that gives them their backbones with seeded random weights (`metric_helpers.py` of the tests); lpips and DISTS
get random heads too. The tests give the same weights and pictures to our code. Needs torch, scipy and tqdm;
one minute on one core.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "tests" / "data" / "metric_references.json"
sys.path.insert(0, str(ROOT / "tests" / "evaluate" / "metrics"))

from metric_helpers import feature_set, pair, picture, random_state  # noqa: E402

PACKAGES = ("lpips", "DISTS_pytorch", "pytorch_fid")
SIZES = ((64, 80), (97, 131), (200, 160))  # height, width; odd sides meet the edges of every pooling
EVERY = 64  # of the 2048 features of a picture, one in so many is kept
SEED = 4

Size = int | tuple[int, int]  # of a kernel, or of a padding


def sequential(layers: Sequence[nn.Module]) -> SimpleNamespace:
    """Return a classifier with random weights, of which the packages use ``features`` only."""
    module = nn.Sequential(*layers)
    named = {f"features.{name}": value for name, value in module.state_dict().items()}
    state = random_state({name: tuple(value.shape) for name, value in named.items()}, SEED)
    module.load_state_dict({name.removeprefix("features."): torch.from_numpy(a) for name, a in state.items()})
    return SimpleNamespace(features=module)


def alexnet(pretrained: bool) -> SimpleNamespace:
    """Stand in for torchvision.models.alexnet."""
    assert pretrained
    return sequential(
        [
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        ]
    )


def vgg16(pretrained: bool) -> SimpleNamespace:
    """Stand in for torchvision.models.vgg16."""
    assert pretrained
    layers: list[nn.Module] = []
    inputs = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2, 2))
    return sequential(layers)


class BasicConv2d(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: int = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.bn(self.conv(x)))


# A convolution along one axis, with its padding.
WIDE_7: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
HIGH_7: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
WIDE_3: dict[str, Any] = {"kernel": (1, 3), "padding": (0, 1)}
HIGH_3: dict[str, Any] = {"kernel": (3, 1), "padding": (1, 0)}


# The blocks are named and called as in torchvision. Where pytorch-fid brings its own forward(), none is here.
class InceptionA(nn.Module):
    """35x35."""

    def __init__(self, inputs: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.branch_pool = BasicConv2d(inputs, pool_features, 1)


class InceptionB(nn.Module):
    """35x35 to 17x17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, nn.functional.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """17x17."""

    def __init__(self, inputs: int, channels_7x7: int) -> None:
        super().__init__()
        c = channels_7x7
        self.branch1x1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7_1 = BasicConv2d(inputs, c, 1)
        self.branch7x7_2 = BasicConv2d(c, c, **WIDE_7)
        self.branch7x7_3 = BasicConv2d(c, 192, **HIGH_7)
        self.branch7x7dbl_1 = BasicConv2d(inputs, c, 1)
        self.branch7x7dbl_2 = BasicConv2d(c, c, **HIGH_7)
        self.branch7x7dbl_3 = BasicConv2d(c, c, **WIDE_7)
        self.branch7x7dbl_4 = BasicConv2d(c, c, **HIGH_7)
        self.branch7x7dbl_5 = BasicConv2d(c, 192, **WIDE_7)
        self.branch_pool = BasicConv2d(inputs, 192, 1)


class InceptionD(nn.Module):
    """17x17 to 8x8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, **WIDE_7)
        self.branch7x7x3_3 = BasicConv2d(192, 192, **HIGH_7)
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, nn.functional.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    """8x8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 320, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, **WIDE_3)
        self.branch3x3_2b = BasicConv2d(384, 384, **HIGH_3)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, **WIDE_3)
        self.branch3x3dbl_3b = BasicConv2d(384, 384, **HIGH_3)
        self.branch_pool = BasicConv2d(inputs, 192, 1)


class Inception3(nn.Module):
    """torchvision.models.inception_v3, whose blocks pytorch-fid partly replaces."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            InceptionA(192, 32),
            InceptionA(256, 64),
            InceptionA(288, 64),
        )
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b, self.Mixed_6c = InceptionC(768, 128), InceptionC(768, 160)
        self.Mixed_6d, self.Mixed_6e = InceptionC(768, 160), InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b, self.Mixed_7c = InceptionE(1280), InceptionE(2048)
        self.fc = nn.Linear(2048, num_classes)


def inception_v3(num_classes: int, **_: Any) -> Inception3:
    """torchvision.models.inception_v3 without the auxiliary classifier."""
    return Inception3(num_classes)


def inception_weights(url: str, progress: bool) -> dict[str, Tensor]:
    """Return random weights of the right names and shapes, in place of the download."""
    assert "pt_inception-2015-12-05" in url and progress
    kept = {
        name: value for name, value in Inception3(1008).state_dict().items() if value.ndim
    }  # not the counters
    state = random_state({name: tuple(value.shape) for name, value in kept.items()}, SEED)
    counters = {
        f"{name.rsplit('.', 1)[0]}.num_batches_tracked": torch.tensor(0) for name in state if ".bn." in name
    }
    return {name: torch.from_numpy(array) for name, array in state.items()} | counters


def install_stub() -> None:
    """Make ``import torchvision`` give the backbones above."""
    blocks = {kind.__name__: kind for kind in (InceptionA, InceptionB, InceptionC, InceptionD, InceptionE)}
    inception = module("torchvision.models.inception", **blocks)
    utils = module("torchvision.models.utils", load_state_dict_from_url=inception_weights)
    nets = {"alexnet": alexnet, "vgg16": vgg16, "inception_v3": inception_v3}
    models = module("torchvision.models", inception=inception, utils=utils, **nets)
    transforms = module("torchvision.transforms")
    module("torchvision", models=models, transforms=transforms, __version__="0.13.0")


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    sys.modules[name] = made
    return made


def tensor(image: Any) -> Tensor:
    """Turn uint8 [H, W, 3] into float32 [1, 3, H, W], 0-255."""
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]


def compare(distance: Callable[[Tensor, Tensor], Tensor]) -> list[dict[str, Any]]:
    """Return values of a distance on pairs of all sizes."""
    rows = []
    for seed, (height, width) in enumerate(SIZES):
        a, b = pair(height, width, seed)
        with torch.no_grad():
            value = float(distance(tensor(a), tensor(b)))
        rows.append({"height": height, "width": width, "seed": seed, "value": value})
    return rows


def lpips_values(net: str) -> list[dict[str, Any]]:
    lpips = import_module("lpips")
    shapes = {
        f"lin{n}.model.1.weight": (1, c, 1, 1) for n, c in enumerate(lpips.LPIPS(net=net, verbose=False).chns)
    }
    heads = {name: torch.from_numpy(array) for name, array in random_state(shapes, SEED).items()}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(heads, Path(folder) / "heads.pth")
        model = lpips.LPIPS(net=net, model_path=str(Path(folder) / "heads.pth"), verbose=False)
    # With normalize=True the package expects [0, 1].
    return compare(lambda a, b: model(a / 255.0, b / 255.0, normalize=True))


def dists_values() -> list[dict[str, Any]]:
    model = import_module("DISTS_pytorch").DISTS(load_weights=False)
    shapes = {name: tuple(getattr(model, name).shape) for name in ("alpha", "beta")}
    for name, array in random_state(shapes, SEED).items():
        getattr(model, name).data = torch.from_numpy(array)
    return compare(lambda a, b: model(a / 255.0, b / 255.0))


def inception_values() -> list[dict[str, Any]]:
    model = import_module("pytorch_fid.inception").InceptionV3().eval()
    rows = []
    for seed, (height, width) in enumerate(((256, 256), (299, 299), (180, 330))):
        with torch.no_grad():
            (features,) = model(tensor(picture(height, width, seed)) / 255.0)
        kept = [float(value) for value in features.flatten()[::EVERY]]
        rows.append({"height": height, "width": width, "seed": seed, "every": EVERY, "features": kept})
    return rows


def fid_values() -> list[dict[str, Any]]:
    distance = import_module("pytorch_fid.fid_score").calculate_frechet_distance
    rows = []
    for rows_a, rows_b, dimensions in ((5000, 5000, 64), (5000, 6000, 96)):
        a, b = feature_set(rows_a, dimensions, "a", SEED), feature_set(rows_b, dimensions, "b", SEED)
        statistics = [value for x in (a, b) for value in (np.mean(x, 0, np.float64), np.cov(x, rowvar=False))]
        value = float(distance(*statistics))
        rows.append(
            {"rows_a": rows_a, "rows_b": rows_b, "dimensions": dimensions, "seed": SEED, "value": value}
        )
    return rows


def main(folder: str) -> None:
    """Run all packages and write the file of references."""
    sys.path.insert(0, folder)
    install_stub()
    found = {name: metadata.version(name) for name in (*PACKAGES, "torch", "numpy", "scipy")}
    references = {
        "made_with": found | {"python": platform.python_version()},
        "seed": SEED,
        "lpips_alex": lpips_values("alex"),
        "lpips_vgg": lpips_values("vgg"),
        "dists": dists_values(),
        "inception": inception_values(),
        "fid": fid_values(),
    }
    OUTPUT.write_text(json.dumps(references, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
