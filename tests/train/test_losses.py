"""MS-SSIM as a loss: the figures and gradients of pytorch-msssim."""

from __future__ import annotations

import pytest
import torch
from pytorch_msssim import ms_ssim

from sprdiff.train.losses import one_channel, structural_similarity


@pytest.mark.parametrize(
    ("shape", "window"),
    [((2, 3, 192, 192), 11), ((2, 3, 177, 223), 11), ((1, 3, 100, 101), 7), ((3, 1, 170, 170), 11)],
)
def test_as_pytorch_msssim(shape: tuple[int, ...], window: int) -> None:
    generator = torch.Generator().manual_seed(1)
    b = torch.rand(shape, generator=generator)
    a = (b + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1).requires_grad_()
    ours = structural_similarity(a, b)
    theirs = ms_ssim(a, b, data_range=1.0, size_average=False, win_size=window)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(ours.sum(), a)
    (wanted,) = torch.autograd.grad(theirs.sum(), a)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-7)


def test_opposite_pictures_have_a_finite_gradient() -> None:
    b = torch.rand(1, 1, 192, 192, generator=torch.Generator().manual_seed(2))
    a = (1 - b).requires_grad_()
    similar = structural_similarity(a, b)
    similar.sum().backward()
    assert 0 <= float(similar.detach()) < 0.01 and a.grad is not None and a.grad.isfinite().all()


def test_one_channel_takes_the_same_of_both() -> None:
    a = torch.arange(3.0).view(1, 3, 1, 1).expand(64, 3, 2, 2)
    torch.manual_seed(3)
    p, q = one_channel(a, a + 10)
    assert p.shape == (64, 1, 2, 2) and torch.equal(q, p + 10)
    assert set(p[:, 0, 0, 0].tolist()) == {0.0, 1.0, 2.0}
