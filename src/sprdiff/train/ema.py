"""Exponential moving averages of weights, as an object (compare timm's ``ModelEmaV3``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ModelEMA:
    """Averages of the trained parameters of a module; its buffers are not averaged but used as they are.

    Inside a ``with`` block the module computes with the averages.

    Attributes:
        averages: the averages by the names of the parameters.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.decay = decay
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters after a step; early averages follow faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), values, 1 - decay)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(held)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()
