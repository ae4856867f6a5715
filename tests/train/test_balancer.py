"""The balancer: terms pull at the image by their shares, and one bad step leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sprdiff.train.balancer import MEMORY, Balancer

SHARES = {"distortion": 1.0, "feature": 0.5, "texture": 4.0, "silent": 0.0}
SIZES = {"distortion": 1.0, "feature": 100.0, "texture": 1e-3, "silent": 7.0}
TARGETS = torch.rand(4, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def terms(image: Tensor, spoilt: str = "") -> dict[str, Tensor]:
    scale = {**SIZES, **({spoilt: float("nan")} if spoilt else {})}
    return {name: scale[name] * (image * t).sum() for name, t in zip(SIZES, TARGETS, strict=True)}


def pull(balancer: Balancer, spoilt: str = "") -> Tensor:
    image = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    balancer(image, terms(image, spoilt)).backward()
    assert image.grad is not None
    return image.grad


def rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def test_the_terms_pull_at_the_image_by_their_shares() -> None:
    found = pull(Balancer(SHARES))
    size = rms(TARGETS[0])  # that of the first term's gradient
    wanted = sum(SHARES[name] * size * t / rms(t) for name, t in zip(SIZES, TARGETS, strict=True))
    assert torch.allclose(found, torch.as_tensor(wanted), rtol=1e-4)


def test_its_value_is_the_weighted_sum() -> None:
    balancer, image = Balancer(SHARES), torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    value = float(balancer(image, terms(image)).detach())
    plain = float(balancer(image.detach(), terms(image.detach())))  # nothing to balance: validation
    assert value == pytest.approx(plain, rel=1e-5) and value > 0


def test_a_number_that_is_none_leaves_no_trace() -> None:
    balancer = Balancer(SHARES)
    before = pull(balancer).clone()
    sizes = balancer.sizes.clone()
    assert not torch.isfinite(pull(balancer, "feature")).all()
    assert torch.equal(balancer.sizes[1], sizes[1]) and bool(torch.isfinite(balancer.sizes).all())
    assert torch.allclose(pull(balancer), before, rtol=1e-5)


def test_sizes_are_remembered() -> None:
    balancer = Balancer(SHARES)
    pull(balancer)
    before = balancer.sizes.clone()
    image = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    balancer(image, {name: 2 * value for name, value in terms(image).items()})
    assert torch.allclose(balancer.sizes, before * (MEMORY + 2 * (1 - MEMORY)))
    other = Balancer(SHARES)
    other.load_state_dict(balancer.state_dict())
    assert torch.equal(other.sizes, balancer.sizes)


def test_a_term_that_joins_late_starts_at_its_own_size() -> None:
    balancer = Balancer(SHARES)
    pull(balancer)
    known = balancer.sizes.clone()
    balancer.sizes[1:] = 0  # as an earlier leg leaves them that had the distortion only
    pull(balancer)
    assert torch.allclose(balancer.sizes[1:], known[1:])
