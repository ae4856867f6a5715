"""Exponential moving average of parameters, as an object (compare timm's ``ModelEmaV2``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class EMA:
    """Averages of some parameters; as a context manager it swaps them into the model.

    Attributes:
        values: the averages, in the order of the parameters.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self.values: list[Tensor] = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step; early averages forget faster."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self._parameters], 1 - decay)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self.values, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()
