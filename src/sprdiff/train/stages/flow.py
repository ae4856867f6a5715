"""Stage ``flow``: flow matching on the VAE's latent, then training for few steps (shortcut models), guided if
wanted (autoguidance)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import TrainingError
from ...models.config import STEP_SIZES
from ...models.sprdiff import SPRDiff
from .. import checkpoints
from ..latents.store import Batch
from ..validation.samples import draw
from .base import Scalars, StageModule
from .codec import receive

UNIFORM, LAST = 0.25, 0.03
"""Shares of the batch with a uniform time, and with t = 1 exactly: samples start there, and a logit-normal
time is rarely close to the ends."""
SLOW = 0.99
"""Decay of the moving average of the network that few steps learn from."""
SMALLEST_STRIDE = 1
"""The index in `STEP_SIZES` of the smallest step, which is trained as the velocity at its beginning is."""
STEPS_JUDGED = (1, 2, 4, 8, 16)


class FlowStage(StageModule):
    """The loss is the mean squared error of the velocity v = ε − z at z_t = (1 − t)·z + t·ε; most times are
    logit-normal.

    If `few` is above 0, that share of each batch learns that one step equals two half steps (Frans et al.,
    ICLR 2025): the velocity for a step size d at time t is trained towards the mean of two velocities for
    d/2, at t and at t − d/2, which a moving average of the network computes. The rest of the batch goes on
    learning the flow itself. The smallest step, 1/8, is an Euler step of the flow: it does not learn two
    halves, because finer solutions of a flow that is not fully trained are worse (dev/LOG.md, 101).

    If `guide` is above 0, the network learns a guided velocity in place of the flow's own (Karras et al.,
    NeurIPS 2024): v₂ + guide·(v₂ − v₁), where v₂ is the velocity of a trained flow and v₁ that of an earlier,
    worse one. What the two disagree about is what the worse one smooths away. The guided velocity belongs to
    no distribution of the photographs, so this comes last, with few steps.

    Args:
        few: the share of the batch that learns few steps.
        guide: the weight of the guidance.
        guides: checkpoints of the trained flow and of the worse one.
    """

    extras = ("slow.",)

    def __init__(
        self,
        model: SPRDiff,
        trains: tuple[str, ...],
        *,
        few: float = 0.0,
        guide: float = 0.0,
        guides: Sequence[str] = (),
    ) -> None:
        super().__init__(model, trains)
        if (len(guides) != 2) if guide else guides:
            raise TrainingError("guide above 0 needs guides: the checkpoints of a flow and of a worse one")
        self.few, self.guide = few, guide
        self.slow = copy.deepcopy(model.flow).requires_grad_(False) if few else nn.Identity()
        self.guides = nn.ModuleList(TrainedFlow(model, Path(path)) for path in guides)

    def forward(self, x: Batch, level: Tensor) -> Scalars:
        model, level = self.model, x["level"]
        z = x["mean"] + x["deviation"] * torch.randn_like(x["mean"])
        z = model.standardised(z)
        given = model.reconstruction.conditions(x["coarse"], x["f32"], x["f16"])
        count, noise = len(z), torch.randn_like(z)
        time, stride = draw_times(count, z.device), torch.zeros(count, device=z.device)
        jumps = round(self.few * count)
        if jumps:
            stride[: (count - jumps) // 2].fill_(SMALLEST_STRIDE)
            stride[-jumps:] = torch.randint(
                SMALLEST_STRIDE + 1, len(STEP_SIZES), (jumps,), device=z.device
            ).float()
            sizes = stride_size(stride[-jumps:])
            time[-jumps:] = sizes * (1 + torch.floor(torch.rand(jumps, device=z.device) / sizes))
        z_t = z.lerp(noise, time[:, None, None, None])
        wanted = self._guided(z_t, time, x) if self.guide else noise - z
        if jumps:
            wanted[-jumps:] = self._two_halves(z_t, time, stride, level, x["coarse"], given, jumps)
        velocity = model.flow(z_t, time, stride, level, model.flow.condition(x["coarse"], *given)).float()
        error = (velocity - wanted).square().mean((1, 2, 3))
        scalars = {"loss": error.mean(), "flow": error[: count - jumps].mean()}
        return {**scalars, "jump": error[-jumps:].mean()} if jumps else scalars

    @torch.no_grad()
    def _guided(self, z_t: Tensor, time: Tensor, x: Batch) -> Tensor:
        """Return the guided velocity, [N,Z,H/8,W/8]."""
        better, worse = (flow(z_t, time, x) for flow in self.guides)
        guided: Tensor = better.lerp(worse, -self.guide)
        return guided

    @torch.no_grad()
    def _two_halves(
        self,
        z_t: Tensor,
        time: Tensor,
        stride: Tensor,
        level: Tensor,
        coarse: Tensor,
        given: tuple[Tensor, Tensor],
        jumps: int,
    ) -> Tensor:
        slow = self.slow
        assert not isinstance(slow, nn.Identity)
        z_t, time, stride, level, coarse = (part[-jumps:] for part in (z_t, time, stride, level, coarse))
        conditions = slow.condition(coarse, *(part[-jumps:] for part in given))
        half = stride_size(stride) / 2
        first = slow(z_t, time, stride - 1, level, conditions).float()
        second = slow(
            z_t - half[:, None, None, None] * first, time - half, stride - 1, level, conditions
        ).float()
        torch._foreach_lerp_(list(slow.parameters()), list(self.model.flow.parameters()), 1 - SLOW)
        return (first + second) / 2

    @torch.no_grad()
    def samples(self, x: Tensor, level: Tensor) -> dict[str, Tensor]:
        """Return x̃, samples in several numbers of steps, and the mean of x̃ and the sample in eight
        steps."""
        coarse, f16, f32, _ = receive(self.model, x, level)
        found = {"coarse": coarse}
        for steps in STEPS_JUDGED:
            found[f"{steps} steps"] = draw(
                self.model, coarse, f16, f32, level, steps=steps, few=bool(self.few)
            )
        return {**found, "half of 8 steps": (coarse + found["8 steps"]) / 2}


class TrainedFlow(nn.Module):
    """A trained flow with its own conditions, frozen: z_t, time and what the receiver has -> velocity.

    Raises:
        TrainingError: the checkpoint has no flow, or one of another configuration.
    """

    def __init__(self, model: SPRDiff, path: Path) -> None:
        super().__init__()
        trained = copy.deepcopy(model)
        if "flow" not in checkpoints.load_networks(trained, checkpoints.load(path), path):
            raise TrainingError(f"{path} has no trained flow")
        self.flow = trained.flow.requires_grad_(False)
        self.reconstruction = trained.reconstruction.requires_grad_(False)

    def forward(self, z_t: Tensor, time: Tensor, x: Batch) -> Tensor:
        conditions = self.reconstruction.conditions(x["coarse"], x["f32"], x["f16"])
        given = self.flow.condition(x["coarse"], *conditions)
        velocity: Tensor = self.flow(z_t, time, torch.zeros_like(time), x["level"], given)
        return velocity.float()


def stride_size(index: Tensor) -> Tensor:
    """Return the step sizes at indices from 1 on. They are computed: a table would be copied to the device
    in each step."""
    return torch.exp2(index - (len(STEP_SIZES) - 1))


def draw_times(count: int, device: torch.device) -> Tensor:
    """Draw times, [N] in 0-1: logit-normal (Esser et al., ICML 2024), some of them uniform, some exactly
    1."""
    time = torch.sigmoid(torch.randn(count, device=device))
    kind = torch.rand(count, device=device)
    time = torch.where(kind < UNIFORM, torch.rand(count, device=device), time)
    return torch.where(kind > 1 - LAST, 1.0, time)
