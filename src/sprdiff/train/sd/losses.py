"""The losses of preset `sd` beside rate and squared error.

x̂, x ─ VGG16 ─ five taps ─ LPIPS            x̂, x ─ DINOv2, frozen ─ last layer ─ 1 - cosine
                                                                 └ four layers ─ heads ─ hinge
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ...evaluate.metrics import backbones
from ...evaluate.metrics.perceptual import ALEXNET, VGG16, Architecture

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""LPIPS's own constants, for images in [-1, 1]."""


NETS = {"vgg": (VGG16, "vgg16", "lpips_vgg"), "alex": (ALEXNET, "alexnet", "lpips_alex")}
"""The architecture and the published weights of each kind of LPIPS."""


class LpipsLoss(nn.Module):
    """LPIPS v0.1 (Zhang et al., CVPR 2018) with gradients: images [N,3,H,W] in 0-1 -> [N].

    It is equal to `evaluate.metrics.perceptual.Lpips`, which measures. Training uses VGG16; LPIPS on AlexNet
    only measures, and nothing is trained on it.

    Args:
        backbone: ``features.N.{weight,bias}``. heads: ``linN.model.1.weight`` [1,C,1,1].
    """

    def __init__(
        self, backbone: Mapping[str, Tensor], heads: Mapping[str, Tensor], architecture: Architecture = VGG16
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.stages = nn.ModuleList()
        for stage in architecture.stages:
            layers = nn.Sequential()
            for conv in stage:
                weight, bias = (backbone[f"features.{conv.place}.{kind}"] for kind in ("weight", "bias"))
                layer = nn.Conv2d(conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.padding)
                layer.load_state_dict({"weight": weight, "bias": bias})
                layers.extend([layer, nn.ReLU()])
            self.stages.append(layers)
        for i in range(len(architecture.stages)):
            self.register_buffer(f"head{i}", heads[f"lin{i}.model.1.weight"].float())
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False)

    @classmethod
    def load(cls, folder: Path | None, net: str = "vgg") -> LpipsLoss:
        """Load the published weights, which `evaluate.metrics.backbones` finds and checks.

        Raises:
            WeightsError: they are missing, or other ones.
        """
        architecture, backbone, heads = NETS[net]
        # The heads come first: if they are missing, half a gigabyte of VGG16 need not be read to say so.
        return cls(
            heads=backbones.load(heads, folder),
            backbone=backbones.load(backbone, folder),
            architecture=architecture,
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return LPIPS of each pair; gradients reach ``a`` only."""
        with torch.no_grad():
            reference = self._taps(b)
        total = a.new_zeros(a.shape[0], dtype=torch.float32)
        for i, (p, q) in enumerate(zip(self._taps(a), reference, strict=True)):
            difference = (_unit(p.float()) - _unit(q.float())).square() * self.get_buffer(f"head{i}")
            total = total + difference.sum(1).mean((1, 2))
        return total

    def _taps(self, x: Tensor) -> list[Tensor]:
        x = (2 * x - 1 - self.get_buffer("shift")) / self.get_buffer("scale")
        taps = []
        for pooled, stage in zip(self.architecture.pooled, self.stages, strict=True):
            x = stage(F.max_pool2d(x, self.architecture.window, 2) if pooled else x)
            taps.append(x)
        return taps


def _unit(x: Tensor) -> Tensor:
    # The root of zero has no gradient, so there is a small number inside.
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-10)


def feature_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the semantic distance of features [N,S,h,w]: one minus the cosine, averaged over positions, [N]
    in 0-2."""
    return 1 - F.cosine_similarity(a.float(), b.float(), dim=1).mean((1, 2))


def quarters(count: int) -> list[int]:
    """Return the layers that the discriminator looks at, of a backbone with so many: the end of each quarter,
    each once."""
    return sorted({max(1, round(count * quarter / 4)) for quarter in (1, 2, 3, 4)})


class SemanticDiscriminator(nn.Module):
    """The discriminator: heads on the features of a frozen backbone (Sauer et al., StyleGAN-T 2023), one for
    each layer, [N, patches].

    Of features several hundred channels wide a small head suffices; spectral norm bounds its slope.
    """

    def __init__(self, channels: int, layers: int, width: int = 128) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_head(channels, width) for _ in range(layers))

    def forward(self, features: list[Tensor]) -> Tensor:
        logits = []
        for head, x in zip(self.heads, features, strict=True):
            # Later layers are tens of times larger than early ones.
            x = x.float() * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6)
            logits.append(head(x).flatten(1))
        return torch.cat(logits, dim=1)


def _head(channels: int, width: int) -> nn.Sequential:
    def conv(cin: int, cout: int, kernel: int) -> Any:
        return spectral_norm(nn.Conv2d(cin, cout, kernel, padding=kernel // 2))

    return nn.Sequential(
        conv(channels, width, 1),
        nn.LeakyReLU(0.2),
        conv(width, width, 3),
        nn.LeakyReLU(0.2),
        conv(width, 1, 1),
    )
