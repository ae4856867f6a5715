"""Stage ``vae``: a latent for the detail that x̃ lacks, and the decoder that turns it into a picture.

The stage learns from crops whose x̃ has been computed before (`latents`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...models.sprdiff import SPRDiff
from ..latents.store import Batch
from .base import Scalars, StageModule
from .codec import receive
from .perception import Perception


class VAEStage(StageModule):
    """A conditional VAE (Kingma & Welling 2014): z = E(x, x̃), x̂ = D(z, x̃). A controller holds the rate of
    z.

    The loss is that of `Perception`, plus β·KL. β rises while z carries more than `nats`
    per position and falls otherwise.

    Args:
        nats: the rate of z that is held, in nats per position at 1/8 of the side.
        perceptual: how many crops of a batch the features see.
    """

    extras = ("log_beta",)
    ABSOLUTE, FIRST_BETA, PACE = 16.0, 1e-5, 0.01

    def __init__(
        self, model: SPRDiff, trains: tuple[str, ...], *, nats: float = 24.0, perceptual: int = 4
    ) -> None:
        super().__init__(model, trains)
        self.perception = Perception(self.ABSOLUTE, perceptual)
        self.nats = nats
        self.log_beta: Tensor
        self.register_buffer("log_beta", torch.tensor(math.log(self.FIRST_BETA)))

    def forward(self, x: Batch, level: Tensor) -> Scalars:
        original, coarse = x["x"], x["coarse"]
        mean, log_deviation = (part.float() for part in self.model.triple_encoder.vae(original, coarse))
        z = mean + log_deviation.exp() * torch.randn_like(mean)
        decoded = self.model.vae_decoder(z, coarse)
        kl = (0.5 * (mean.square() + (2 * log_deviation).exp() - 1) - log_deviation).sum(1).mean()
        scalars = self.perception(decoded, original)
        loss = sum(scalars.values()) + self.log_beta.exp() * kl
        if self.training:
            rise = (kl.detach() / self.nats - 1).clamp(-1, 1)
            self.log_beta.add_(torch.where(torch.isfinite(rise), self.PACE * rise, 0.0))
        return {"loss": loss, **scalars, "kl": kl, "beta": self.log_beta.exp()}

    @torch.no_grad()
    def samples(self, x: Tensor, level: Tensor) -> dict[str, Tensor]:
        """Return x̃, and the picture that the VAE decodes from the latent of the original."""
        coarse, _, _, _ = receive(self.model, x, level)
        mean, log_deviation = (part.float() for part in self.model.triple_encoder.vae(x, coarse))
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).to(mean.device)
        return {"coarse": coarse, "vae": self.model.vae_decoder(mean + log_deviation.exp() * noise, coarse)}

    @torch.no_grad()
    def finish(self, batches: list[Any]) -> None:
        """Measure mean and deviation of the sampled latent by channel; the flow works on the standardised
        latent."""
        pairs = [self.model.triple_encoder.vae(b["x"], b["coarse"]) for b in batches]
        mean = torch.cat([m.float() for m, _ in pairs])
        variance = torch.cat([(2 * d.float()).exp() for _, d in pairs])
        self.model.latent_mean.copy_(mean.mean((0, 2, 3)))
        self.model.latent_std.copy_((mean.var((0, 2, 3)) + variance.mean((0, 2, 3))).sqrt().clamp(min=1e-3))
