"""Muon (Jordan et al. 2024) for dense convolutions: momentum with orthogonalised steps. AdamW does the rest.

The root mean square of a step's entries is 0.2, the usual size of Adam's, so that one learning rate suits
both (Liu et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .soap import is_matrix

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Coefficients of the fifth-order Newton-Schulz iteration."""
_ITERATIONS = 5
_SIZE = 0.2


class Muon(torch.optim.AdamW):
    """Muon for the dense convolutions of the model, AdamW for all other parameters.

    Args:
        named: the names in the stage's module and the parameters.
    """

    half = False
    """Whether matrices are multiplied in bfloat16, for machines on which that is the faster precision."""

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ) -> None:
        super().__init__([p for _, p in named], lr=lr, weight_decay=0.0, betas=(0.9, 0.99))
        self._matrices = [p for name, p in named if is_matrix(name, p)]
        self._weight_decay, self._momentum = weight_decay, momentum

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step all parameters; the gradients of the convolutions are deleted."""
        lr = self.param_groups[0]["lr"]
        for parameter in self._matrices:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            mean = state["momentum"].mul_(self._momentum).add_(parameter.grad)
            direction = parameter.grad.add(mean, alpha=self._momentum).reshape(len(parameter), -1)
            parameter.mul_(1 - lr * self._weight_decay)
            size = _SIZE * max(direction.shape) ** 0.5
            parameter.add_(orthogonal(direction, half=self.half).view_as(parameter), alpha=-lr * size)
            parameter.grad = None  # AdamW skips parameters without a gradient
        super().step(closure)


def orthogonal(matrix: Tensor, *, half: bool = False) -> Tensor:
    """Return approximately the nearest matrix with orthonormal rows or columns, float32.

    Args:
        half: whether to compute in bfloat16.
    """
    x = matrix / (matrix.norm() + 1e-7)
    x = (x.T if x.shape[0] > x.shape[1] else x).to(torch.bfloat16 if half else torch.float32)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).float()
