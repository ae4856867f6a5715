"""The loss scale of training in float16, whose small gradients would be zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

START = 2.0**14
PATIENT = 1000
"""So many finite gradients in a row double the scale."""


class LossScale:
    """Dynamic loss scaling (Micikevicius et al., ICLR 2018): an overflow halves the scale.

    Everything stays on the device, so that no step waits for the host.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.tensor(START, device=device)
        self.sound = torch.zeros((), device=device)

    def up(self, loss: Tensor) -> Tensor:
        """The loss that is differentiated."""
        return loss * self.value

    def down(self, parameters: Sequence[nn.Parameter]) -> None:
        """Undo the scale in the gradients."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(self.value)

    def update(self, finite: Tensor) -> None:
        """Take in whether the gradients of a step were numbers, a tensor of one boolean."""
        self.sound = torch.where(finite, self.sound + 1, 0.0)
        grown = torch.where(self.sound >= PATIENT, self.value * 2, self.value)
        self.value = torch.where(finite, grown, self.value / 2).clamp(min=1.0)
        self.sound = torch.where(self.sound >= PATIENT, 0.0, self.sound)
