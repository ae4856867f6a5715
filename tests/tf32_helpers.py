"""Emulates TF32 without a GPU: products of float32 whose factors keep 10 bits of their mantissa."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


def as_tf32(x: Tensor) -> Tensor:
    """Return what a tensor core takes of float32, the nearest number with 10 bits of mantissa; other types
    stay as they are."""
    if x.dtype != torch.float32:
        return x
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def emulate_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make convolutions and matrix products those of a GPU that uses TF32 wherever it may."""
    convolution, product = F.conv2d, torch.Tensor.__matmul__

    def conv2d(x: Tensor, weight: Tensor, *given: Any, **options: Any) -> Tensor:
        return convolution(as_tf32(x), as_tf32(weight), *given, **options)

    def matmul(left: Tensor, right: Tensor) -> Tensor:
        return product(as_tf32(left), as_tf32(right))

    monkeypatch.setattr(F, "conv2d", conv2d)
    monkeypatch.setattr(torch.Tensor, "__matmul__", matmul)
