"""Training in half precision: autocast, TF32, and the loss scale of float16, whose small gradients would be zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..sd.precision import PRECISIONS, products

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes in, by the name of a precision."""
START = 2.0**14
PATIENT = 1000
"""So many finite gradients in a row double the scale."""


@contextmanager
def networks(precision: str, device: torch.device, *, compiled: bool = False) -> Iterator[None]:
    """Run the networks in a precision, meanwhile; ``auto`` leaves everything as it is.

    Args:
        compiled: whether the networks are compiled: these take the flags of TF32 that they find.
    """
    half = HALF.get(precision)
    matrices = products(precision) if precision in PRECISIONS and not compiled else nullcontext()
    with torch.autocast(device.type, half, enabled=half is not None), matrices:
        yield


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
