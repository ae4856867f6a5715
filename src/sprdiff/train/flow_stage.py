"""Stage ``flow``: flow matching on the VAE's latent, and few steps (shortcut models) once it is trained."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from ..models.config import STEP_SIZES
from ..models.sprdiff import SPRDiff
from .latents import Batch
from .samples import draw
from .stages import Scalars, StageModule, receive

UNIFORM, LAST = 0.25, 0.03
"""Shares of the batch whose time is uniform, and is t = 1 itself: a logit-normal hardly ever comes near the
ends, where a sampler begins."""
SLOW = 0.99
STEPS_JUDGED = (1, 2, 4, 8, 16)


class FlowStage(StageModule):
    """Mean squared error of the velocity v = ε − z at z_t = (1 − t)·z + t·ε; t is logit-normal for the most
    part.

    With ``few`` above 0 so much of each batch learns that one step is what two half steps make (Frans et al.,
    ICLR 2025): the velocity of stride d at t agrees with the mean of those of stride d/2 at t and t − d/2, by
    a slow average of the network. The rest keeps the flow itself.

    Args:
        few: share of the batch for few steps.
    """

    extras = ("slow.",)

    def __init__(self, model: SPRDiff, trains: tuple[str, ...], *, few: float = 0.0) -> None:
        super().__init__(model, trains)
        self.few = few
        self.slow = copy.deepcopy(model.flow).requires_grad_(False) if few else nn.Identity()

    def forward(self, x: Batch, level: Tensor) -> Scalars:
        model, level = self.model, x["level"]
        z = x["mean"] + x["deviation"] * torch.randn_like(x["mean"])
        z = model.standardised(z)
        given = model.reconstruction.conditions(x["coarse"], x["f32"], x["f16"])
        count, noise = len(z), torch.randn_like(z)
        time, stride = draw_times(count, z.device), torch.zeros(count, device=z.device)
        jumps = round(self.few * count)
        if jumps:
            stride[-jumps:] = torch.randint(1, len(STEP_SIZES), (jumps,), device=z.device).float()
            sizes = stride_size(stride[-jumps:])
            time[-jumps:] = sizes * (1 + torch.floor(torch.rand(jumps, device=z.device) / sizes))
        z_t = z.lerp(noise, time[:, None, None, None])
        wanted = noise - z
        if jumps:
            wanted[-jumps:] = self._two_halves(z_t, time, stride, level, x["coarse"], given, jumps)
        velocity = model.flow(z_t, time, stride, level, model.flow.condition(x["coarse"], *given)).float()
        error = (velocity - wanted).square().mean((1, 2, 3))
        scalars = {"loss": error.mean(), "flow": error[: count - jumps].mean()}
        return {**scalars, "jump": error[-jumps:].mean()} if jumps else scalars

    @torch.no_grad()
    def _two_halves(
        self, z_t: Tensor, time: Tensor, stride: Tensor, level: Tensor, coarse: Tensor,
        given: tuple[Tensor, Tensor], jumps: int,
    ) -> Tensor:  # fmt: skip
        slow = self.slow
        assert not isinstance(slow, nn.Identity)
        z_t, time, stride, level, coarse = (part[-jumps:] for part in (z_t, time, stride, level, coarse))
        conditions = slow.condition(coarse, *(part[-jumps:] for part in given))
        half = stride_size(stride) / 2
        first = slow(z_t, time, stride - 1, level, conditions).float()
        second = slow(z_t - half[:, None, None, None] * first, time - half, stride - 1, level, conditions).float()
        torch._foreach_lerp_(list(slow.parameters()), list(self.model.flow.parameters()), 1 - SLOW)
        return (first + second) / 2

    @torch.no_grad()
    def samples(self, x: Tensor, level: Tensor) -> dict[str, Tensor]:
        """x̃, samples of several numbers of steps, and halfway from x̃ to one of eight."""
        coarse, f16, f32, _ = receive(self.model, x, level)
        found = {"coarse": coarse}
        for steps in STEPS_JUDGED:
            stride = stride_of(steps) if self.few else 0.0
            found[f"{steps} steps"] = draw(self.model, coarse, f16, f32, level, steps=steps, stride=stride)
        return {**found, "half of 8 steps": (coarse + found["8 steps"]) / 2}


def stride_size(index: Tensor) -> Tensor:
    """`STEP_SIZES` at indices from 1 on, computed: a table would be copied to the device in every step."""
    return torch.exp2(index - (len(STEP_SIZES) - 1))


def draw_times(count: int, device: torch.device) -> Tensor:
    """[N] times in 0-1: logit-normal (Esser et al., ICML 2024), some uniform, some exactly 1."""
    time = torch.sigmoid(torch.randn(count, device=device))
    kind = torch.rand(count, device=device)
    time = torch.where(kind < UNIFORM, torch.rand(count, device=device), time)
    return torch.where(kind > 1 - LAST, 1.0, time)


def stride_of(steps: int) -> float:
    """Index into `STEP_SIZES` of the largest known step that is no larger than 1/steps."""
    known = [i for i, d in enumerate(STEP_SIZES) if d and d <= 1 / steps + 1e-9]
    return float(max(known, default=0)) if math.log2(steps).is_integer() else 0.0
