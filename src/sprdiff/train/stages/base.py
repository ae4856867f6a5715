"""The base class of the stages.

A stage's ``forward(batch, levels)`` returns a dictionary of scalars: the training loop minimises ``loss`` and
logs the others. The loop runs the networks under autocast; losses and the integer networks compute in
float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...format.constants import LEVELS
from ..checkpoints import own_state

Scalars = dict[str, Tensor]


def draw_levels(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw levels, [N]: half of them uniform, half closer to the middle, where most files are made."""
    uniform = torch.rand(2, count, device=device)
    leaning = torch.rand(count, device=device) < 0.5
    level = torch.where(leaning, uniform.mean(0), uniform[0])
    return level.mul(LEVELS).floor().clamp(max=LEVELS - 1)


class StageModule(nn.Module):
    """The base class of the stages. It holds the model, and gives gradients only to what the stage trains."""

    progress = 0.0
    """The part of the stage that is done, 0-1; ramps depend on it."""
    step = 0
    extras: tuple[str, ...] = ()
    """Prefixes of the weights beside the model, such as a discriminator's, that a later leg needs."""

    def __init__(self, model: nn.Module, trains: tuple[str, ...]) -> None:
        super().__init__()
        self.model: Any = model  # `SPRDiff`, or the model of preset `sd`
        own = own_state(model)  # pretrained weights inside a part stay frozen
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(trains) and name in own)

    def begin(self, step: int, progress: float) -> None:
        """Prepare for a step: the loop tells its number and the part of the stage that is done."""
        self.step, self.progress = step, progress

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        """Draw the levels of a batch, [N] in 0-255."""
        return draw_levels(count, device)

    def set_precision(self, word: str, device: torch.device) -> str:
        """Prepare for a precision before the first step; return it, or what the stage chose where it is
        ``auto``."""
        return word

    def forward(self, x: Any, level: Tensor) -> Scalars:
        raise TypeError(f"{type(self).__name__} is abstract")

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return images [N,3,H,W] and their bits per pixel [N] for validation; None if the stage makes no
        images.

        Args:
            x: N images, or one image that is coded at N levels.
        """
        return None

    def samples(self, x: Tensor, level: Tensor) -> dict[str, Tensor] | None:
        """Return pictures [1,3,H,W] that validation judges, by what they show; None if there are none."""
        return None

    def extra_state(self) -> dict[str, Tensor]:
        """Return the parameters and buffers under ``extras``."""
        return (
            {k: v for k, v in self.state_dict().items() if k.startswith(self.extras)} if self.extras else {}
        )

    def finish(self, batches: list[Any]) -> None:
        """Complete the stage after its last step, with a few batches of training data."""
