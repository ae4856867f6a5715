"""Analysis transform of ELIC (He et al., CVPR 2022): the distortion-oriented encoder of preset `sd`.

    x ─ conv5 ↓2 ─ RB×3 ─ conv5 ↓2 ─ RB×3 ─ attention ─ conv5 ↓2 ─ RB×3 ─ conv5 ↓2 ─ attention ─► 320 ch at 1/16

RB is a residual bottleneck 1×1 → 3×3 → 1×1 with ReLU in place of GDN, as in the paper's figure 6. Everything is
convolutional, so what a position sees ends 132 pixels away (tests/sd/test_sd_models.py).
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError
from ..models.blocks import conv
from .hub import brief


class ResidualBottleneck(nn.Module):
    """1×1 to half the channels, 3×3, 1×1 back, added to the input; [N,C,H,W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter, self.body, self.leave = conv(channels, half), conv(half, half, 3), conv(half, channels)
        # A residual branch that starts small keeps deep stacks stable without normalisation.
        nn.init.normal_(self.leave.weight, std=0.3 * half**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.leave(F.relu(self.body(F.relu(self.enter(x)))))
        return x + branch


class ConvAttention(nn.Module):
    """Attention by a convolutional mask (Cheng et al., CVPR 2020): x + a(x) · sigmoid(b(x)), [N,C,H,W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Sequential(*(ResidualBottleneck(channels) for _ in range(3)))
        self.mask = nn.Sequential(*(ResidualBottleneck(channels) for _ in range(3)), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        value, mask = self.value(x), self.mask(x)
        return x + value * mask.sigmoid()


class ElicAnalysis(nn.Module):
    """Image [N,3,H,W] in 0-1, sides multiples of 16 -> features [N,M,H/16,W/16].

    Args:
        widths: (N, M), channels of the inner layers and of the result; 192 and 320 in the paper.
    """

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        inner, out = widths

        def stage() -> list[nn.Module]:
            return [ResidualBottleneck(inner) for _ in range(3)]

        self.body = nn.Sequential(
            conv(3, inner, 5, stride=2),
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
        # Pixels have a standard deviation near a quarter.
        out: Tensor = self.body(4 * (x - 0.5))
        return out

    def load(self, path: Path) -> None:
        """Take the weights of a safetensors file with this module's names, strictly.

        Raises:
            WeightsError: the file cannot be read, or a weight is missing, unknown or of another shape.
        """
        try:
            self.load_state_dict(load_file(path), strict=True)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise WeightsError(
                f"{path} does not hold ELIC's analysis transform of these sizes: {brief(error)}"
            ) from error
