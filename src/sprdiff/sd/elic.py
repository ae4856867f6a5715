"""The analysis transform of ELIC (He et al., CVPR 2022): the distortion-oriented encoder of preset `sd`.

    x ─ conv5 ↓2 ─ RB×3 ─ conv5 ↓2 ─ RB×3 ─ attention ─ conv5 ↓2 ─ RB×3 ─ conv5 ↓2 ─ attention ─► 320 at 1/16

RB is a residual bottleneck 1×1 → 3×3 → 1×1 with ReLU in place of GDN, as in the paper's figure 6. Layers,
input range and the ReLU after each block inside the attention are those of CompressAI's
``Elic2022Official.g_a``, whose trained weights `ElicAnalysis.load` reads. Everything is convolutional, so a
position sees no further than 132 pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.messages import reason
from ..errors import WeightsError
from ..models.blocks import conv
from .hub import brief


class ResidualBottleneck(nn.Module):
    """A residual bottleneck: 1×1 to half the channels, 3×3, 1×1 back, added to the input; [N,C,H,W] -> the
    same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter, self.body, self.leave = conv(channels, half), conv(half, half, 3), conv(half, channels)
        # A residual branch that starts small keeps deep stacks stable without normalisation.
        nn.init.normal_(self.leave.weight, std=0.3 * half**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.leave(F.relu(self.body(F.relu(self.enter(x)))))
        return x + branch


class ResidualUnit(ResidualBottleneck):
    """The block inside the attention: a ResidualBottleneck with a ReLU behind the sum."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class ConvAttention(nn.Module):
    """Attention by a convolutional mask (Cheng et al., CVPR 2020): x + a(x) · sigmoid(b(x)), [N,C,H,W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))
        self.mask = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        value, mask = self.value(x), self.mask(x)
        return x + value * mask.sigmoid()


class ElicAnalysis(nn.Module):
    """The analysis transform: image [N,3,H,W] in 0-1, sides multiples of 16 -> features [N,M,H/16,W/16].

    Args:
        widths: (N, M), channels of the inner layers and of the result; 192 and 320 in the paper.
    """

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        inner, out = widths

        def stage() -> list[nn.Module]:
            return [ResidualBottleneck(inner) for _ in range(3)]

        self.body = nn.Sequential(
            _pixels(inner),
            *stage(),
            conv(inner, inner, 5, stride=2),
            *stage(),
            ConvAttention(inner),
            conv(inner, inner, 5, stride=2),
            *stage(),
            conv(inner, out, 5, stride=2),
            ConvAttention(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out

    def load(self, path: Path) -> None:
        """Load the weights of a file: this module's own names, or CompressAI's `Elic2022Official`.

        Args:
            path: ``.safetensors``, or what ``torch.save`` wrote of a state dict; of that only tensors are
                read.

        Raises:
            WeightsError: the file cannot be read, or a weight is missing, unknown or of another shape.
        """
        try:
            state = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
            self.load_state_dict(from_compressai(state), strict=True)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {reason(error)}") from error
        except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
            raise WeightsError(
                f"{path} does not hold ELIC's analysis transform of these sizes: {brief(error)}"
            ) from error


def _pixels(channels: int) -> nn.Conv2d:
    """Return the first layer, which starts as one that sees pixels with a mean of 0 and a deviation near
    1."""
    layer = conv(3, channels, 5, stride=2)
    with torch.no_grad():
        layer.weight.mul_(4)
        assert layer.bias is not None
        layer.bias.copy_(-0.5 * layer.weight.sum((1, 2, 3)))
    return layer


_LAYERS = (("conv1", "enter"), ("conv2", "body"), ("conv3", "leave"))
_UNIT = {"0": "enter", "2": "body", "4": "leave"}
_BRANCH = {"a": "value", "b": "mask"}


def from_compressai(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of CompressAI's ``Elic2022Official.g_a`` under the names of `ElicAnalysis`.

    Other parts of that model are left out. A state dict without any ``g_a.`` is returned as it is.
    """
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    analysis = {name[4:]: value for name, value in plain.items() if name.startswith("g_a.")}
    return {_renamed(name): value for name, value in analysis.items()} if analysis else dict(state)


def _renamed(name: str) -> str:
    """Return our name of a weight: ``5.conv1.weight`` -> ``body.5.enter.weight``, ``8.conv_a.0.conv.2.bias``
    -> ``body.8.value.0.body.bias``."""
    if inside := re.fullmatch(r"(\d+)\.conv_([ab])\.(\d)(?:\.conv\.([024]))?\.(\w+)", name):
        place, branch, number, layer, kind = inside.groups()
        middle = f"{number}.{_UNIT[layer]}" if layer else number
        return f"body.{place}.{_BRANCH[branch]}.{middle}.{kind}"
    for theirs, own in _LAYERS:
        name = name.replace(f".{theirs}.", f".{own}.")
    return f"body.{name}"


def _read_pickle(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict that ``torch.save`` wrote, with or without what training kept beside it.

    Raises:
        ValueError: the file is none, or could run code.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises UnpicklingError, RuntimeError and what broken zips make of them
        raise ValueError(f"it is no state dict that holds tensors alone ({brief(error)})") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError("it is no state dict")
    return content
