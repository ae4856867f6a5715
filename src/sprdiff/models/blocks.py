"""Building blocks of all networks.

    ResBlock:   x ─► SiLU ─► 3×3 ─► SiLU ─► 3×3 ─► + x                         (`tiny`)
    ConvBlock:  x ─► dw k×k ─► 1×1 (c → 2c) ─► GELU ─► 1×1 (2c → c) ─► + x   (`sd`)

There is no normalisation over positions: a tile must give the same as the whole image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..format.constants import KNOT_SPACING, KNOTS


def conv(
    cin: int,
    cout: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """Return a convolution whose initial weights keep the variance of its input; by default odd kernels are
    padded to "same".

    torch's default shrinks a signal by 0.58 at every layer; without normalisation y would start near zero.
    """
    if padding is None:
        padding = kernel // 2 if kernel % 2 else 0
    layer = nn.Conv2d(cin, cout, kernel, stride=stride, padding=padding, groups=groups, bias=bias)
    nn.init.normal_(layer.weight, std=(cin // groups * kernel * kernel) ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    """Set the weights of a layer to zero, so that it contributes nothing before it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ConvBlock(nn.Module):
    """Residual depthwise block, [N,C,H,W] -> the same shape; it costs 4C + k² MACs per channel and
    position."""

    def __init__(self, channels: int, kernel: int = 3, expand: int = 2) -> None:
        super().__init__()
        self.depthwise = conv(channels, channels, kernel, groups=channels)
        self.expand = conv(channels, expand * channels)
        self.project = conv(expand * channels, channels)
        # Small initial weights in the residual branch keep deep stacks stable without normalisation.
        with torch.no_grad():
            self.project.weight.mul_(0.3)

    def branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(F.gelu(self.expand(self.depthwise(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ResBlock(nn.Module):
    """Residual block of two dense 3x3 convolutions, [N,C,H,W] -> the same shape; it costs 18·C² MACs per
    position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels, 3), conv(channels, channels, 3)
        # Small initial weights in the residual branch keep deep stacks stable without normalisation.
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + out


def res_blocks(channels: int, count: int) -> nn.Sequential:
    """Return ``count`` ResBlocks in a row."""
    return nn.Sequential(*(ResBlock(channels) for _ in range(count)))


class PixelConv(nn.Module):
    """Convolution from pixels to a grid 2^n times coarser: [N,Cin,H,W] -> [N,C,H/stride,W/stride].

    Its kernel covers ``cells`` x ``cells`` cells of the grid. In training, the cells are gathered first,
    which is twice as fast; an exported graph uses one strided convolution with the same sums.
    """

    def __init__(self, cin: int, cout: int, stride: int, cells: int = 1) -> None:
        super().__init__()
        self.stride, self.cells = stride, cells
        self.weight = nn.Parameter(torch.randn(cout, cin, cells * stride, cells * stride))
        self.bias = nn.Parameter(torch.zeros(cout))
        with torch.no_grad():
            self.weight.mul_((cin * (cells * stride) ** 2) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.cells, self.stride
        if torch.onnx.is_in_onnx_export():
            return F.conv2d(x, self.weight, self.bias, stride=s, padding=s * (k // 2))
        cout, cin = self.weight.shape[:2]
        kernel = (
            self.weight.view(cout, cin, k, s, k, s).permute(0, 1, 3, 5, 2, 4).reshape(cout, cin * s * s, k, k)
        )
        return F.conv2d(F.pixel_unshuffle(x, s), kernel, self.bias, padding=k // 2)


def blocks(channels: int, count: int, kernel: int = 3) -> nn.Sequential:
    """Return ``count`` ConvBlocks in a row."""
    return nn.Sequential(*(ConvBlock(channels, kernel) for _ in range(count)))


def down(cin: int, cout: int) -> nn.Conv2d:
    """Return a layer that halves the resolution: 2x2 convolution of stride 2."""
    return conv(cin, cout, 2, stride=2)


def up(cin: int, cout: int) -> nn.Sequential:
    """Return a layer that doubles the resolution: 1x1 convolution and pixel shuffle."""
    return nn.Sequential(conv(cin, 4 * cout), nn.PixelShuffle(2))


def level_weights(level: Tensor) -> Tensor:
    """Return the weights of the 9 knots at the given levels: [N] in 0-255 -> [N,9]; each row sums to 1.

    The integer networks use the same numbers times 256 (docs/bitstream.md).
    """
    knots = torch.arange(KNOTS, device=level.device, dtype=level.dtype) * KNOT_SPACING
    return (1 - (level[:, None] - knots).abs() / KNOT_SPACING).clamp(min=0)


class LevelModulation(nn.Module):
    """Scales and shifts channels by the quality level: x·(1 + s(level)) + b(level), [N,C,H,W]; initially
    the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(KNOTS, channels))
        self.shift = nn.Parameter(torch.zeros(KNOTS, channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        weights = level_weights(level)
        scale, shift = weights @ self.scale, weights @ self.shift
        return x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
