"""SOAP for dense convolutions, the optimiser of `tiny`. AdamW does the rest.

SOAP (Vyas et al. 2024) is Adam in the eigenbasis of Shampoo's preconditioner. Here only the smaller side of a
kernel has a basis, as the authors suggest for wide layers: on a CPU this costs a fifth of a step, and both
sides would double the time. In stage `codec`, 450 steps were worth 1,500 of AdamW (dev/LOG.md 28).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

REFRESH = 20
"""Steps between two updates of a basis. The layers take turns, so that all steps take about as long."""
WARMUP = 60
"""Steps over which the learning rate of a new preconditioner rises."""
EXACT = ("latent_codec.hyper_synthesis.", "latent_codec.context.")
"""The integer networks: their weights are rounded in every step, and AdamW trains them."""


class Soap(torch.optim.AdamW):
    """One-sided SOAP for the dense convolutions of the model, AdamW for all other parameters.

    Args:
        named: the names in the stage's module and the parameters.
        betas: the betas of SOAP: one for the gradient, one for its square and for the preconditioner.
    """

    half = False
    """Whether matrices are multiplied in bfloat16, for machines on which that is the faster precision."""

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        lr: float,
        weight_decay: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.95),
    ) -> None:
        super().__init__([p for _, p in named], lr=lr, weight_decay=weight_decay)
        self._matrices = [p for name, p in named if is_matrix(name, p)]
        self._betas = betas

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step all parameters; the gradients of the convolutions are deleted."""
        group = self.param_groups[0]
        for index, parameter in enumerate(self._matrices):
            if parameter.grad is not None:
                self._precondition(parameter, index, group["lr"], group["weight_decay"])
                parameter.grad = None  # AdamW skips parameters without a gradient
        super().step(closure)

    def _precondition(self, parameter: nn.Parameter, index: int, lr: float, weight_decay: float) -> None:
        assert parameter.grad is not None
        gradient = oriented(parameter.grad)
        state = self.state[parameter]
        if "gram" not in state:  # a new run, or one that began with AdamW
            state.clear()
            state.update(_fresh(gradient))
        b1, b2 = self._betas
        state["step"] += 1
        step = int(state["step"])
        if step % 2 == 0:  # every second gradient is enough for a slow average
            state["gram"].lerp_(gradient @ gradient.mT, 2 * (1 - b2))
        basis = state["basis"]
        state["mean"].lerp_(gradient, 1 - b1)
        state["square"].lerp_(product(basis.mT, gradient, self.half).square(), 1 - b2)
        mean = product(basis.mT, state["mean"], self.half) / (1 - b1**step)
        square = state["square"] / (1 - b2**step)
        update = product(basis, mean / (square.sqrt() + 1e-8), self.half)
        if (step + index) % REFRESH == 0 or step in (5, 10):
            _turn(state)
        rate = lr * min(1.0, step / WARMUP)
        update = update if parameter.shape[0] <= parameter[0].numel() else update.mT
        parameter.mul_(1 - rate * weight_decay).sub_(rate * update.reshape(parameter.shape))


def product(a: Tensor, b: Tensor, half: bool) -> Tensor:
    """Multiply matrices to float32; with `half` in bfloat16, whose error is far below a gradient's noise."""
    return (a.bfloat16() @ b.bfloat16()).float() if half else a @ b


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is the kernel of a dense convolution of the model itself."""
    if not name.startswith("model.") or name.removeprefix("model.").startswith(EXACT):
        return False
    return parameter.ndim == 4 and parameter.shape[1] > 1


def oriented(kernel: Tensor) -> Tensor:
    """Turn a kernel [O,I,k,k] into a matrix with at most as many rows as columns."""
    matrix = kernel.reshape(kernel.shape[0], -1)
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _fresh(gradient: Tensor) -> dict[str, Tensor]:
    gram = gradient @ gradient.mT
    basis = torch.linalg.eigh(gram + 1e-12 * torch.eye(len(gram), device=gram.device))[1]
    zeros = torch.zeros_like(gradient)
    return {"step": torch.zeros(()), "gram": gram, "basis": basis, "mean": zeros, "square": zeros.clone()}


def _turn(state: dict[str, Tensor]) -> None:
    """Update the basis by one step of orthogonal iteration, the largest directions first."""
    gram, basis = state["gram"], state["basis"]
    order = torch.diagonal(basis.mT @ gram @ basis).argsort(descending=True)
    state["square"] = state["square"][order]
    state["basis"] = torch.linalg.qr(gram @ basis[:, order])[0]
