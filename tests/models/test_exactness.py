"""Tests that integer networks stay exact in whatever precision the networks around them run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import sprdiff.models.latent_codec
from sprdiff.models.integer_networks import exact_products
from sprdiff.models.latent_codec import Quantised
from sprdiff.train.losses import structural_similarity
from training_helpers import nano_model

Latents = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def latents() -> Latents:
    """Return y, z and levels of a random picture."""
    model = nano_model()
    with torch.no_grad():
        y, z = model.latent_codec.analyse(model.triple_encoder(torch.rand(2, 3, 128, 192)))
    return y, z, torch.tensor([70.0, 201.0])


@pytest.fixture(autouse=True)
def tf32_allowed() -> Iterator[None]:
    """Allow TF32, as cuDNN uses it unasked, and as a user may tell cuBLAS."""
    parts: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = True
    yield
    for part, allowed in zip(parts, before, strict=True):
        part.allow_tf32 = allowed


def tf32(x: Tensor) -> Tensor:
    """Keep ten bits of the mantissa, as in the inputs of a tensor core; 13 of 23 are rounded away."""
    if x.dtype != torch.float32:
        return x
    bits = x.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class EmulatedTF32(TorchFunctionMode):
    """Runs convolutions and matrix products of float32 in TF32 where the flags allow it."""

    CONV = (F.conv2d,)
    MATMUL = (torch.matmul, Tensor.matmul, Tensor.__matmul__, F.linear)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        convolves = func in self.CONV and torch.backends.cudnn.allow_tf32
        multiplies = func in self.MATMUL and torch.backends.cuda.matmul.allow_tf32
        if convolves or multiplies:
            args = (tf32(args[0]), tf32(args[1]), *args[2:])
        return func(*args, **kwargs)


def code(latents: Latents) -> Quantised:
    with torch.no_grad():
        return nano_model().latent_codec(*latents, hard=True)


def same(a: Quantised, b: Quantised) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_under_autocast(latents: Latents) -> None:
    wanted = code(latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(code(latents), wanted)


def test_latents_in_half_precision_are_coded_in_full(latents: Latents) -> None:
    """The networks before them may run in bfloat16; their result is rounded once, and then coded exactly."""
    y, z, level = latents
    halves = y.bfloat16(), z.bfloat16(), level
    with torch.autocast("cpu", torch.bfloat16):
        found = code(halves)
    assert same(found, code((halves[0].float(), halves[1].float(), level)))
    assert found.y_hat.dtype == torch.float32


def test_with_tf32(latents: Latents) -> None:
    wanted = code(latents)
    with EmulatedTF32():
        assert same(code(latents), wanted)
    assert torch.backends.cudnn.allow_tf32, "the networks around must have their TF32 back"


def test_the_emulation_would_be_noticed(latents: Latents, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = code(latents)
    monkeypatch.setattr(sprdiff.models.latent_codec, "exact_products", nullcontext)
    with EmulatedTF32():
        assert not same(code(latents), wanted)


def test_tf32_comes_back_after_an_error() -> None:
    with pytest.raises(KeyError), exact_products():
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


def test_metrics_and_losses_under_autocast() -> None:
    """MS-SSIM's windows are convolutions, which autocast would run in bfloat16, and so are the layers of
    SqueezeNet."""
    a = torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(1))
    b = (a + 0.02 * torch.randn(a.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    wanted = structural_similarity(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(structural_similarity(a, b), wanted)
