"""Tests of the optimiser: what it preconditions, and that it pays where directions differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sprdiff.train.optimizers.soap import REFRESH, Soap, is_matrix, oriented


def ill_conditioned(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return inputs whose directions differ a thousandfold in size, turned against the axes, and targets of a
    linear map."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]
    x = torch.randn(256, 12, generator=generator) * torch.logspace(0, -3, 12) @ basis
    return x[:, :, None, None], x @ torch.randn(12, 8, generator=generator)


def fit(optimiser: str, steps: int = 400) -> float:
    torch.manual_seed(1)
    layer = nn.Conv2d(12, 8, 1, bias=False)
    named = list(nn.ModuleDict({"model": layer}).named_parameters())
    chosen = Soap(named, lr=3e-2) if optimiser == "soap" else torch.optim.AdamW(layer.parameters(), lr=3e-2)
    x, target = ill_conditioned()
    for step in range(steps):
        for group in chosen.param_groups:
            group["lr"] = 3e-2 * (1 - step / steps)
        loss = (layer(x)[:, :, 0, 0] - target).square().mean()
        loss.backward()
        chosen.step()
        chosen.zero_grad()
    return float(loss.detach())


def test_it_learns_small_directions_that_adam_does_not() -> None:
    assert fit("soap") < 0.2 * fit("adamw")


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("model.synthesis.enter.weight", (8, 4, 3, 3), True),
        ("model.synthesis.body32.0.depthwise.weight", (8, 1, 3, 3), False),
        ("model.synthesis.enter.bias", (8,), False),
        ("model.latent_codec.context.0.weight", (8, 4, 1, 1), False),
        ("discriminator.fine.body.1.weight", (8, 4, 4, 4), False),
    ],
)
def test_what_is_preconditioned(name: str, shape: tuple[int, ...], wanted: bool) -> None:
    assert is_matrix(name, torch.zeros(shape)) is wanted


def test_a_kernel_is_taken_by_its_smaller_side() -> None:
    assert oriented(torch.zeros(8, 4, 3, 3)).shape == (8, 36)
    assert oriented(torch.zeros(64, 4, 3, 3)).shape == (36, 64)


@pytest.mark.parametrize("shape", [(6, 6, 1, 1), (4, 9, 1, 1), (9, 4, 1, 1)])
def test_a_kernel_and_its_transpose_learn_alike(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(shape) for _ in range(2 * REFRESH)]
    steps = []
    for turn in (False, True):
        kernel = nn.Parameter(torch.zeros(shape).transpose(0, 1).contiguous() if turn else torch.zeros(shape))
        chosen = Soap([("model.k", kernel)], lr=1e-2, weight_decay=0.0)
        for gradient in gradients:
            kernel.grad = gradient.transpose(0, 1).contiguous() if turn else gradient.clone()
            chosen.step()
        steps.append(kernel.detach().transpose(0, 1) if turn else kernel.detach())
    if (
        shape[0] == shape[1]
    ):  # both sides are the smaller one: another basis each, but a step of the same size
        assert torch.allclose(steps[0].abs().mean(), steps[1].abs().mean(), rtol=0.2)
    else:
        assert torch.allclose(steps[0], steps[1], atol=1e-6)


def test_it_goes_on_from_what_adamw_left() -> None:
    kernel = nn.Parameter(torch.ones(4, 4, 1, 1))
    chosen = Soap([("model.k", kernel)], lr=1e-2)
    chosen.state[kernel] = {"step": torch.tensor(7.0), "exp_avg": kernel * 0, "exp_avg_sq": kernel * 0}
    kernel.grad = torch.randn_like(kernel)
    chosen.step()
    assert set(chosen.state[kernel]) == {"step", "gram", "basis", "mean", "square"}
    assert bool(torch.isfinite(kernel).all())
