"""Stage ``polish``: the VAE's decoder learns on latents that the flow draws, those that a receiver has."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.sprdiff import SPRDiff
from ..latents.store import Batch
from ..validation.samples import draw, sampled
from .base import Scalars, StageModule
from .codec import receive
from .perception import Perception

WEAKEST = 0.5
"""The pictures that are judged are this far from x̃ to the sample, and farther: that is how users look at
them."""


class PolishStage(StageModule):
    """The last stage: stage ``vae`` has shown the decoder latents of originals alone, and those that the flow
    draws have errors of their own. Encoder and flow are frozen.

    The loss is that of stage ``vae`` with less weight on L1, which would rather have no texture at all than
    texture in another place.

    Args:
        evaluations: how often the flow is evaluated for a latent, as often as at a receiver.
        few: whether the flow was trained for few steps.
        absolute: the weight of L1.
    """

    def __init__(
        self,
        model: SPRDiff,
        trains: tuple[str, ...],
        *,
        evaluations: int = 8,
        few: bool = False,
        absolute: float = 4.0,
    ) -> None:
        super().__init__(model, trains)
        self.perception = Perception(absolute, 8)
        self.evaluations, self.few = evaluations, few

    def forward(self, x: Batch, level: Tensor) -> Scalars:
        coarse, z0 = x["coarse"], self._drawn(x)
        picture = self.model.decode_latent(z0, coarse).float()
        strength = torch.empty(len(coarse), 1, 1, 1, device=coarse.device).uniform_(WEAKEST, 1)
        scalars = self.perception(coarse.lerp(picture, strength), x["x"])
        return {"loss": sum(scalars.values()), **scalars}

    @torch.no_grad()
    def _drawn(self, x: Batch) -> Tensor:
        """Draw a standardised latent for each crop, [N,Z,H/8,W/8]."""
        coarse, channels = x["coarse"], self.model.config.vae_latent
        height, width = (side // 8 for side in coarse.shape[2:])
        noise = torch.randn(len(coarse), channels, height, width, device=coarse.device)
        received = (coarse, x["f16"], x["f32"])
        return sampled([self.model], received, x["level"], noise, steps=self.evaluations, few=self.few)

    @torch.no_grad()
    def samples(self, x: Tensor, level: Tensor) -> dict[str, Tensor]:
        """Return x̃, a sample, and the mean of both."""
        coarse, f16, f32, _ = receive(self.model, x, level)
        sample = draw(self.model, coarse, f16, f32, level, steps=self.evaluations, few=self.few)
        steps = f"{self.evaluations} steps"
        return {"coarse": coarse, steps: sample, f"half of {steps}": (coarse + sample) / 2}
