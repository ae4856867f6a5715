"""Stage ``codec``: everything from the image to the coarse image x̃.

codec ──► vae ──► flow ──► flow for few steps ──► export
  ▲         │
  └─────────┘ once the VAE's encoder is good, it joins the fusion
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import TrainingError
from ...models.latent_codec import Quantised
from ...models.rate import lambda_of
from ...models.reconstruction import Reconstruction
from ...models.sprdiff import SPRDiff
from ...models.triple_encoder import SEMANTIC_SCALE, blurred
from ..losses import mse, one_channel, structural_similarity
from .base import Scalars, StageModule


def code(
    model: SPRDiff,
    x: Tensor,
    level: Tensor,
    branches: Sequence[str],
    semantic: Tensor | None = None,
    *,
    hard: bool = True,
) -> tuple[Quantised, Reconstruction]:
    """Send images through the latent codec and back to x̃; one image at several levels is analysed once.

    Args:
        branches: the encoders beside the distortion-oriented one, ``vae`` and ``semantic``.
        semantic: the features of EfficientNet-Lite0 if they are known already.
    """
    encoder, latent = model.triple_encoder, None
    with torch.no_grad():
        if "vae" in branches:
            latent, _ = encoder.vae(x, blurred(x))
        if "semantic" in branches and semantic is None:
            assert encoder.semantic is not None
            semantic = encoder.semantic(x).float()
    fused = encoder.fuse(encoder.distortion(x), latent, semantic if "semantic" in branches else None)
    y, z = (t.expand(len(level), -1, -1, -1) for t in model.latent_codec.analyse(fused))
    q = model.latent_codec(y, z, level, hard=hard)
    return q, model.receive(q, level)


def active_branches(model: SPRDiff) -> tuple[str, ...]:
    """Return the branches whose weights in the fusion are not all zero."""
    layers = {"vae": model.triple_encoder.fuse_vae, "semantic": model.triple_encoder.fuse_semantic}
    return tuple(name for name, layer in layers.items() if layer is not None and bool(layer.weight.any()))


@torch.no_grad()
def receive(model: SPRDiff, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a receiver has of images: x̃ rounded to bytes, in 0-1; f16; f32; and the bits of each
    image."""
    q, r = code(model, x, level, active_branches(model))
    coarse = r.coarse.float().clamp(0, 1).mul(255).round().div(255)
    return coarse, r.f16.float(), r.f32.float(), q.y_bits + q.z_bits


def price_at(prices: Sequence[tuple[int, float]], step: int) -> float:
    """Return the price of a bit at a step, interpolated geometrically between those of two steps; 1 if there
    are none."""
    if not prices:
        return 1.0
    steps, costs = zip(*prices, strict=True)
    return math.exp(float(np.interp(step, steps, [math.log(cost) for cost in costs])))


class CodecStage(StageModule):
    """The loss is rate + λ(level)·distortion, and every sample of a batch has its own level.

    The distortion is the squared error, together with MS-SSIM if `structure` is above 0. The tokens c_sem
    learn to predict EfficientNet-Lite0's features of the original (semantic distillation, as in OneDC); the
    gradient reaches the encoder.

    Args:
        structure: the weight of 1 − MS-SSIM beside the squared error, whose weight falls from 1 by
            `EXCHANGE` times as much.
        relative: if above 0, the loss is the logarithm of a sample's cost beyond about this cost: a busy crop
            then counts less than by its size, as it does in means of PSNR and of bytes saved in per cent.
        semantic: the weight of the distillation; 0 switches it off.
        branches: the encoders that join the fusion beside the distortion-oriented one: ``vae``, ``semantic``.
        noisy_steps: for so many steps the bits are those of latents with uniform noise, which makes a good
            start.
        price: pairs of a step and what a bit costs there, of its full price; between two steps it changes
            geometrically. A model that begins with cheap bits, and thus with high rates, keeps all channels
            of y in use; at full price most of them die in the first steps (dev/LOG.md, 107).
    """

    EXCHANGE = 50.0
    """At `structure` 0.008, which leaves 0.6 of the squared error, both are worth about as many bits (Kodak,
    0.01 to 0.03 bpp)."""
    COST = 0.027
    """The mean cost of a sample, (bpp + λ·distortion)/√λ. The relative loss has about the gradient of the
    other one at this cost."""
    extras = ("tell.",)
    hard = False
    """Whether the bits are those of rounded latents. If `forward` read the step's number, every step would be
    compiled again."""

    def __init__(
        self,
        model: SPRDiff,
        trains: tuple[str, ...],
        *,
        structure: float = 0.0,
        relative: float = 0.0,
        semantic: float = 0.0,
        branches: tuple[str, ...] = (),
        noisy_steps: int = 1500,
        price: Sequence[tuple[int, float]] = (),
    ) -> None:
        super().__init__(model, trains)
        if not 0 <= structure <= 1 / self.EXCHANGE:
            raise TrainingError(f"structure must be between 0 and {1 / self.EXCHANGE:g}, not {structure:g}")
        if relative < 0:
            raise TrainingError(f"relative must be at least 0, not {relative:g}")
        if any(step < 0 or cost <= 0 for step, cost in price) or [*price] != sorted(price):
            raise TrainingError(f"price must be pairs of a step and a factor above 0, in order, not {price}")
        self.structure, self.relative, self.semantic_weight = structure, relative, semantic
        self.prices = tuple((int(step), float(cost)) for step, cost in price)
        # A buffer: with a number, every step would be compiled again.
        self.price: Tensor
        self.register_buffer("price", torch.ones(()), persistent=False)
        self.branches, self.noisy_steps = branches, noisy_steps
        width = model.config.semantic_condition
        self.tell = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, 4 * model.config.semantic, 1), nn.PixelShuffle(2)
        )
        self.tell.requires_grad_(semantic > 0)
        # Parts that the settings leave out get no gradient; with several processes they would wait for one.
        if not semantic:
            model.reconstruction.semantic.requires_grad_(False)
        encoder = model.triple_encoder
        for name, joined in (("vae", encoder.fuse_vae), ("semantic", encoder.fuse_semantic)):
            if name not in branches and joined is not None:
                joined.requires_grad_(False)

    def begin(self, step: int, progress: float) -> None:
        super().begin(step, progress)
        self.hard = step >= self.noisy_steps
        self.price.fill_(price_at(self.prices, step))

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        wanted = self._semantic(x) if self.semantic_weight or "semantic" in self.branches else None
        q, r = self.code(x, level, wanted, hard=self.hard)
        pixels = x.shape[2] * x.shape[3]
        bpp, weight = (q.y_bits + q.z_bits) / pixels, lambda_of(level, self.model.config.lambda_range)
        coarse = r.coarse.float()
        squared = distortion = mse(coarse, x)
        if self.structure:
            similar = structural_similarity(*one_channel(coarse, x))
            share = 1 - self.EXCHANGE * self.structure
            distortion = share * squared + self.structure * (1 - similar)
        # Without the division by √λ, high qualities would dominate the gradient.
        cost = (self.price * bpp + weight * distortion) * weight.rsqrt()
        if self.relative:
            cost = (self.COST + self.relative) * torch.log1p(cost / self.relative)
        loss = 3 * cost.mean()
        scalars = {"mse": squared.mean(), "bpp": bpp.mean(), "z_bpp": (q.z_bits / pixels).mean()}
        if self.semantic_weight and wanted is not None:
            told = self.tell(self.model.reconstruction.semantic(r.f32)).float()
            scalars["semantic"] = (told - SEMANTIC_SCALE * wanted).square().mean()
            loss = loss + self.semantic_weight * scalars["semantic"]
        return {"loss": loss, **scalars}

    @torch.no_grad()
    def _semantic(self, x: Tensor) -> Tensor:
        assert self.model.triple_encoder.semantic is not None
        out: Tensor = self.model.triple_encoder.semantic(x).float()
        return out

    def code(
        self, x: Tensor, level: Tensor, semantic: Tensor | None, *, hard: bool
    ) -> tuple[Quantised, Reconstruction]:
        """Send images through the latent codec and back to x̃."""
        return code(self.model, x, level, self.branches, semantic, hard=hard)

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        wanted = self._semantic(x) if "semantic" in self.branches else None
        q, r = self.code(x, level, wanted, hard=True)
        return r.coarse.float(), (q.y_bits + q.z_bits) / (x.shape[2] * x.shape[3])
