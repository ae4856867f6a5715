"""The stages of preset `sd` as modules: what each computes from a batch, and what it minimises.

    pixel ─► codec ─► refine or joint ─► export

VAE, DINOv2 and the UNet's own weights come pretrained and stay frozen, so there is no ``vae``, ``semantic``
or ``flow``. `recipes` says what each stage trains, and for how long.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import TrainingError
from ...format.constants import LEVELS
from ...models.latent_codec import Quantised
from ...models.rate import lambda_of
from ...sd.modules import SDReceived
from ...sd.precision import choose_precision, dtype_of
from ..losses import mse, shifted
from ..stages.base import Scalars, StageModule, draw_levels
from .losses import LpipsLoss, SemanticDiscriminator, feature_distance, quarters

WEIGHTS = MappingProxyType({"pixel": 8.0, "lpips": 1.0, "semantic": 0.1})
"""StableCodec's 2·L2 on images in ±1 (8 on 0-1) + LPIPS + 0.1 · a semantic distance; DINOv2's in place of
CLIP's."""
ADVERSARIAL = 0.1
"""The weight of the adversarial term beside those, as StableCodec has it."""


class SDStage(StageModule):
    """The part that all stages share: precision, levels, rates of files, and decoding by the one step.

    Args:
        levels: the first and the last level that training draws; all of them, unless a band is to be
            specialised.
    """

    def __init__(
        self,
        model: nn.Module,
        trains: tuple[str, ...],
        lpips: LpipsLoss | None = None,
        *,
        levels: tuple[int, int] = (0, LEVELS - 1),
    ) -> None:
        super().__init__(model, trains)
        self.lpips = lpips
        self.band = int(levels[0]), int(levels[1])
        if not 0 <= self.band[0] <= self.band[1] < LEVELS:
            raise TrainingError(f"levels must be two numbers from 0 to {LEVELS - 1}, ascending, not {levels}")

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        low, high = self.band
        return (low + draw_levels(count, device) / (LEVELS - 1) * (high - low)).round()

    def set_precision(self, word: str, device: torch.device) -> str:
        chosen = choose_precision(word, self.model.denoiser.gain, device)
        self.model.keep_frozen_in(dtype_of(chosen))
        if self.lpips is not None:
            self.lpips.stages.to(dtype_of(chosen))
        return chosen

    def lambdas(self, level: Tensor) -> Tensor:
        """Return λ of each sample, [N]."""
        return lambda_of(level, self.model.config.lambda_range)

    def decode(self, r: SDReceived) -> tuple[Tensor, Tensor]:
        """Return the clean latent and the picture, both in float32."""
        z0 = self.model.denoise_once(r)
        return z0.float(), self.model.decode_latent(z0, r.coarse).float()

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        fused = self.model.triple_encoder(x)
        y, z = (t.expand(len(level), -1, -1, -1) for t in self.model.latent_codec.analyse(fused))
        q = self.model.latent_codec(y, z, level, hard=True)
        _, image = self.decode(self.model.receive(q, level))
        return image, (q.y_bits + q.z_bits) / (x.shape[2] * x.shape[3])


class SDPixelStage(SDStage):
    """A squared-error codec on the distortion-oriented encoder alone: bpp + λ(level)·MSE, each sample at a
    level of its own.

    The logged ``bpp`` is what files cost, also while the loss prices noisy latents.

    Args:
        noisy_steps: the first steps, in which the loss prices latents with uniform noise: the way to start.
    """

    def __init__(
        self,
        model: nn.Module,
        trains: tuple[str, ...],
        lpips: LpipsLoss | None = None,
        *,
        levels: tuple[int, int] = (0, LEVELS - 1),
        noisy_steps: int = 1500,
    ) -> None:
        super().__init__(model, trains, None, levels=levels)
        self.noisy_steps = noisy_steps
        self.hard = False

    def begin(self, step: int, progress: float) -> None:
        super().begin(step, progress)
        # A number of the step in `forward` would compile each step anew.
        self.hard = step >= self.noisy_steps

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        pixels, hard = x.shape[2] * x.shape[3], self.hard
        latents = self._analyse(x)
        q = self.model.latent_codec(*latents, level, hard=hard)
        weight, squared = self.lambdas(level), mse(self._coarse(q, level), x)
        priced = (q.y_bits + q.z_bits) / pixels
        # Divided by sqrt(λ) so that high qualities do not own the gradient.
        loss = ((priced + weight * squared) * weight.rsqrt()).mean() * 3
        with torch.no_grad():
            cost = q if hard else self.model.latent_codec(*latents, level, hard=True)
        bpp, z_bpp = (cost.y_bits + cost.z_bits) / pixels, cost.z_bits / pixels
        return {"loss": loss, "mse": squared.mean(), "bpp": bpp.mean(), "z_bpp": z_bpp.mean()}

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        y, z = (t.expand(len(level), -1, -1, -1) for t in self._analyse(x))
        q = self.model.latent_codec(y, z, level, hard=True)
        return self._coarse(q, level), (q.y_bits + q.z_bits) / (x.shape[2] * x.shape[3])

    def _analyse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self.model.triple_encoder
        y, z = self.model.latent_codec.analyse(encoder.fuse_distortion(encoder.distortion(x)))
        return y, z

    def _coarse(self, q: Quantised, level: Tensor) -> Tensor:
        _, f16, _ = self.model.synthesis(q.y_hat, q.means, q.features, level)
        coarse: Tensor = self.model.reconstruction.coarse(f16).float()
        return coarse


class Passed(NamedTuple):
    """The result of a batch's pass through the whole codec; rates are those of files, [N]."""

    bpp: Tensor
    z_bpp: Tensor
    coarse: Tensor
    image: Tensor
    semantic: Tensor
    """DINOv2's features of the original."""
    latent: Tensor
    """The squared errors of ẑ and of z0 against the VAE's latent of the original."""


class SDCodecStage(SDStage):
    """The stage that trains everything but the distortion-oriented encoder, for rate and for distortion of x̃
    and x̂.

        loss = 3/√λ · (ρ·bpp + λ·(MSE(x̃)/2 + (8·MSE(x̂) + LPIPS(x̂) + 0.1·semantic(x̂))/8)) + latent terms

    λ follows the level of each sample. ρ ramps from a quarter to one over the first half of the steps: a
    codec that is first given more bits than it will have learns what to do with them (StableCodec's relaxed
    rate).
    """

    LATENT_WEIGHT = 0.05
    RELAXED, RAMP = 0.25, 0.5

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        return self.objective(self.through(x, level), x, level)

    def through(self, x: Tensor, level: Tensor) -> Passed:
        """Run a batch through encoder, latent codec, denoiser and VAE decoder."""
        model, pixels = self.model, x.shape[2] * x.shape[3]
        with torch.no_grad():
            target = model.clean_latent(x).float()
            semantic = model.triple_encoder.semantic(x)
            distortion = model.triple_encoder.distortion(x)
        fused = model.triple_encoder.fuse(distortion, target, semantic)
        q = model.latent_codec(*model.latent_codec.analyse(fused), level, hard=True)
        r = model.receive(q, level)
        z0, image = self.decode(r)
        latent = mse(r.z_est.float(), target).mean() + mse(z0, target).mean()
        bpp, z_bpp = (q.y_bits + q.z_bits) / pixels, q.z_bits / pixels
        return Passed(bpp, z_bpp, r.coarse.float(), image, semantic, latent)

    def objective(self, found: Passed, x: Tensor, level: Tensor) -> Scalars:
        """Return the loss and what is logged beside it."""
        weight, squared = self.lambdas(level), mse(found.coarse, x)
        features = self.model.triple_encoder.semantic(found.image)
        terms = {"pixel": mse(found.image, x), "semantic": feature_distance(features, found.semantic)}
        if self.lpips is not None:
            terms["lpips"] = self.lpips(found.image, x)
        error = 0.5 * squared + sum(WEIGHTS[k] * v for k, v in terms.items()) / WEIGHTS["pixel"]
        # Divided by sqrt(λ) so that high qualities do not own the gradient.
        loss = ((self.rate_weight() * found.bpp + weight * error) * weight.rsqrt()).mean() * 3
        means = {k: v.mean() for k, v in terms.items()}
        return {
            "loss": loss + self.LATENT_WEIGHT * found.latent,
            "mse": squared.mean(),
            "bpp": found.bpp.mean(),
            "z_bpp": found.z_bpp.mean(),
            "latent": found.latent,
            **means,
        }

    def rate_weight(self) -> float:
        """Return ρ at the current step."""
        return min(1.0, self.RELAXED + (1 - self.RELAXED) * self.progress / self.RAMP)


class Judged(NamedTuple):
    """The discriminator's judgement of a batch.

    Attributes:
        fake, real: features of DINOv2, layer by layer.
        loss: the discriminator's own. fooled: the receiver's term, [N].
    """

    fake: list[Tensor]
    real: list[Tensor]
    loss: Tensor
    fooled: Tensor


class SDAdversarialStage(SDStage):
    """A stage with a discriminator: heads on four layers of the frozen DINOv2, with the hinge loss (Lim & Ye
    2017).

    The discriminator trains from the first step; its term joins the receiver's loss later, by a ramp.
    """

    extras = ("discriminator.",)
    FROM, RAMP_UP = 0.02, 0.1
    """Shares of the steps after which the adversarial term joins the loss, and over which it grows."""

    def __init__(
        self,
        model: Any,
        trains: tuple[str, ...],
        lpips: LpipsLoss | None = None,
        *,
        levels: tuple[int, int] = (0, LEVELS - 1),
    ) -> None:
        super().__init__(model, trains, lpips, levels=levels)
        backbone = model.triple_encoder.semantic.backbone
        self.layers = quarters(backbone.config.num_hidden_layers)
        self.discriminator = SemanticDiscriminator(backbone.config.hidden_size, len(self.layers))

    def adversarial_share(self) -> float:
        """Return the share of the adversarial term's weight at the current step, 0 to 1."""
        return min(1.0, max(0.0, (self.progress - self.FROM) / self.RAMP_UP))

    def judge(self, x: Tensor, image: Tensor) -> Judged:
        """Judge the original and the decoded picture."""
        with torch.no_grad():
            real = self.features(x)
        fake = self.features(image)
        loss = F.relu(1 - self.discriminator(real)).mean()
        loss = loss + F.relu(1 + self.discriminator([f.detach() for f in fake])).mean()
        return Judged(fake, real, loss, self.fool(fake))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features that the discriminator sees."""
        found: list[Tensor] = self.model.triple_encoder.semantic.levels(x, self.layers)
        return found

    def fool(self, fake: list[Tensor]) -> Tensor:
        """Return the receiver's adversarial term, [N], which gives the discriminator no gradient."""
        parameters = list(self.discriminator.parameters())
        for p in parameters:
            p.requires_grad_(False)
        fooled = -self.discriminator(fake).mean(1)
        for p in parameters:
            p.requires_grad_(True)
        return fooled


class SDRefineStage(SDAdversarialStage):
    """Adversarial training of the receiver behind x̃; the entropy path and the coarse image are frozen, so
    files stay as they are.

    High qualities weigh fidelity more than low ones.
    """

    LATENT_WEIGHT = 0.02

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        with torch.no_grad():
            target = self.model.clean_latent(x).float()
            f64, f16, coarse = self._frozen(x, level)
        c_pix, c_sem = self.model.reconstruction.conditions(coarse, f64, f16)
        r = SDReceived(coarse, self.model.synthesis.estimate(f16), c_pix, c_sem)
        z0, image = self.decode(r)
        latent = mse(r.z_est.float(), target).mean() + mse(z0, target).mean()
        low, high = self.model.config.lambda_range
        # (λ/λ_mid)^¼: with the preset's range from 0.67 at the lowest quality to 1.5 at the highest.
        weight = (self.lambdas(level) / (low * high) ** 0.5) ** 0.25
        terms = {"pixel": weight * mse(image, x)}
        # The networks that judge must not always see the same phase of their strides.
        x, image = shifted(x, image)
        if self.lpips is not None:
            terms["lpips"] = self.lpips(image, x)
        judged = self.judge(x, image)
        terms["semantic"] = feature_distance(judged.fake[-1], judged.real[-1])
        fooled = judged.fooled.mean()
        means = {k: v.mean() for k, v in terms.items()}
        loss = judged.loss + sum(WEIGHTS[k] * v for k, v in means.items()) + self.LATENT_WEIGHT * latent
        return {
            "loss": loss + self.adversarial_share() * ADVERSARIAL * fooled,
            "discriminator": judged.loss.detach(),
            "mse": mse(image, x).mean(),
            "latent": latent,
            "adversarial": fooled,
            **means,
        }

    def _frozen(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codec = self.model.latent_codec
        q = codec(*codec.analyse(self.model.triple_encoder(x)), level, hard=True)
        f64, f16, _ = self.model.synthesis(q.y_hat, q.means, q.features, level)
        return f64, f16, self.model.reconstruction.coarse(f16)


class SDJointStage(SDCodecStage, SDAdversarialStage):
    """Adversarial training of the whole codec, with its entropy path at a small learning rate.

    The loss is that of ``codec`` at the full rate, and the adversarial term with the weight that it has
    beside LPIPS. StableCodec ends so, with 21,000 steps for each rate, and AEIC with 30,000; here it is one
    model over all rates, or over a band of levels where `levels` names one.
    """

    def rate_weight(self) -> float:
        return 1.0

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        found = self.through(x, level)
        scalars = self.objective(found, x, level)
        judged = self.judge(*shifted(x, found.image))
        # The factor that `objective` gives to LPIPS at this level.
        share = 3 * self.lambdas(level).sqrt() / WEIGHTS["pixel"]
        adversarial = (share * judged.fooled).mean()
        loss = scalars["loss"] + judged.loss + self.adversarial_share() * ADVERSARIAL * adversarial
        return {
            **scalars,
            "loss": loss,
            "discriminator": judged.loss.detach(),
            "adversarial": judged.fooled.mean(),
        }
