"""Tests of Muon: steps of dense kernels are orthogonal and of Adam's usual size, and AdamW does the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sprdiff.train.optimizers.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    """Here the singular values differ by a factor of a hundred before."""
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(0, -2, min(shape))) @ v
    found = orthogonal(matrix)
    assert found.shape == matrix.shape and found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3
    assert torch.allclose(orthogonal(1e-6 * matrix), found, atol=0.2), "the gradient's size counts"


def test_it_turns_the_matrix_and_not_its_directions() -> None:
    torch.manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(12, 12))
    found = orthogonal(u @ torch.diag(torch.linspace(1, 0.3, 12)) @ v)
    inside = u.T @ found @ v.T
    assert (inside - torch.diag(inside.diagonal())).abs().max() < 0.05


def test_kernels_get_muon_and_the_rest_adamw() -> None:
    torch.manual_seed(2)
    layers = nn.ModuleDict(
        {
            "model": nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=16)),
            "discriminator": nn.Conv2d(8, 8, 3),
        }
    )
    named = list(layers.named_parameters())
    before = {name: p.detach().clone() for name, p in named}
    optimizer = Muon(named, lr=1e-2, weight_decay=0.0)
    gradients = {name: torch.randn_like(p) * 10**i for i, (name, p) in enumerate(named)}
    for name, parameter in named:
        parameter.grad = gradients[name].clone()
    optimizer.step()
    for name, parameter in named:
        moved = parameter.detach() - before[name]
        if name == "model.0.weight":
            assert set(optimizer.state[parameter]) == {"momentum"}
            assert float(moved.square().mean().sqrt()) == pytest.approx(0.2 * 1e-2, rel=0.2)
            flat = moved.reshape(16, -1)
            cosine = (flat * -gradients[name].reshape(16, -1)).sum() / (flat.norm() * gradients[name].norm())
            assert float(cosine) > 0.9, "it does not go downhill"
        else:
            assert {"exp_avg", "exp_avg_sq"} <= set(optimizer.state[parameter])
            assert torch.allclose(moved, -1e-2 * gradients[name].sign(), rtol=1e-3)  # Adam's first step


def test_it_learns() -> None:
    torch.manual_seed(3)
    layer, wanted = nn.Conv2d(8, 8, 1, bias=False), torch.randn(8, 8, 1, 1)
    optimizer = Muon(list(nn.ModuleDict({"model": layer}).named_parameters()), lr=0.4, weight_decay=0.0)
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.4 * (1 - step / 60)
        loss = (layer.weight - wanted).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.05 * float(wanted.square().mean())
