"""Terms of a loss that pull at an image by stated shares (the balancer of EnCodec, Défossez et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

MEMORY = 0.98


class Balancer(nn.Module):
    """Brings the gradient of each term at the image to its share of the first term's.

    Natural sizes differ a hundredfold and change in training. Sizes that are no numbers are passed over, so that one
    bad step leaves no trace.

    Args:
        shares: of each term, by name; the first is what the others are measured by.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        super().__init__()
        self.shares = {name: share for name, share in shares.items() if share > 0}
        self.sizes: Tensor
        self.register_buffer("sizes", torch.zeros(len(self.shares)))

    def forward(self, image: Tensor, terms: Mapping[str, Tensor]) -> Tensor:
        """The loss: its value is the weighted sum, its gradient at the image the balanced one.

        Args:
            image: [N,3,H,W], with a gradient while training.
            terms: a scalar for each name that has a share.
        """
        values = torch.stack([terms[name] for name in self.shares])
        if not image.requires_grad:
            return (self._factors() * values).sum()
        gradients = [torch.autograd.grad(value, image, retain_graph=True)[0] for value in values]
        with torch.no_grad():
            found = 1e3 * torch.stack([g.float().square().mean().sqrt() for g in gradients])  # fp16 can keep it
            # A term that an earlier leg did not have starts at its own size, not at a fiftieth of it.
            moved = torch.where(self.sizes == 0, found, MEMORY * self.sizes + (1 - MEMORY) * found)
            self.sizes.copy_(torch.where(torch.isfinite(found), moved, self.sizes))
            factors = self._factors()
            pull = sum(f * g for f, g in zip(factors, gradients, strict=True))
            value = (factors * values).sum()
        stand_in = (image * pull).sum()  # has this gradient, at the cost of one pass through the network
        return value + stand_in - stand_in.detach()

    def _factors(self) -> Tensor:
        shares = torch.tensor(list(self.shares.values()), device=self.sizes.device)
        return shares * self.sizes[0] / self.sizes.clamp(min=1e-12)
