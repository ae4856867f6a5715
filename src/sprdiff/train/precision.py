"""Training in half precision: autocast, TF32, and the loss scale of float16, whose small gradients would
vanish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..sd.config import PRECISIONS
from ..sd.precision import products

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The data type of autocast, by the name of a precision."""
START = 2.0**14
PATIENT = 1000
"""The number of finite gradients in a row after which the scale doubles."""


def check_precision(word: str, known: Sequence[str] = PRECISIONS) -> None:
    """Check the name of a precision.

    Raises:
        TrainingError: it is not known.
    """
    if word not in ("auto", *known):
        raise TrainingError(f"the precision must be one of auto, {', '.join(known)}, not {word!r}")


def choose_device(word: str) -> torch.device:
    """Return the device that a word means; ``auto`` prefers a GPU.

    Raises:
        TrainingError: it is not known, or this machine has none.
    """
    if word not in ("auto", "cpu", "cuda") or (word == "cuda" and not torch.cuda.is_available()):
        raise TrainingError(f"there is no device {word!r} here")
    return torch.device(word if word != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def networks(precision: str, device: torch.device, *, compiled: bool = False) -> Iterator[None]:
    """Run the networks of a ``with`` block in a precision; ``auto`` changes nothing.

    Args:
        compiled: whether the networks are compiled: they keep the flags of TF32 that were set when they were.
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
        """Return the scaled loss."""
        return loss * self.value

    def down(self, parameters: Sequence[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(self.value)

    def update(self, finite: Tensor) -> None:
        """Change the scale after a step; `finite` is one boolean, whether its gradients were finite."""
        self.sound = torch.where(finite, self.sound + 1, 0.0)
        grown = torch.where(self.sound >= PATIENT, self.value * 2, self.value)
        self.value = torch.where(finite, grown, self.value / 2).clamp(min=1.0)
        self.sound = torch.where(self.sound >= PATIENT, 0.0, self.sound)
