"""The stages of training: what each trains, what it needs, and its loss as a module.

    vae ───────┐
    pixel ─────┼─► denoise ─► codec ─► refine ─► export
    semantic ──┘

A stage module's ``forward(x, level)`` returns a dictionary of scalars; ``loss`` is minimised, the rest is logged.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.blocks import up
from ..models.flow import noised
from ..models.latent_codec import lambda_of
from ..models.reconstruction import Reconstruction
from ..models.sprdiff import SPRDiff
from ..models.vae import no_noise
from .checkpoints import own_state
from .losses import TinyDarknet, charbonnier, mse, structural_similarity

Scalars = dict[str, Tensor]


class StageModule(nn.Module):
    """Base of the stage modules: holds the model; gradients only where ``trains`` says."""

    step = 0
    """Number of the step under way, kept by the loop: what ramps reads it."""
    steps = 1
    """How many there will be."""
    extras: tuple[str, ...] = ()
    """Prefixes of what the stage has beside the model that a later leg needs: heads, a critic."""

    def __init__(self, model: SPRDiff, trains: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        own = own_state(model)  # inside a part, what is pretrained stays frozen
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(trains) and name in own)

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        raise TypeError(f"{type(self).__name__} is abstract")

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor] | None:
        """What validation looks at: (image [N,3,H,W], bits per pixel [N]); None where the result is no image."""
        return None

    def extra_state(self) -> dict[str, Tensor]:
        """Parameters and buffers under ``extras``."""
        return {k: v for k, v in self.state_dict().items() if k.startswith(self.extras)} if self.extras else {}

    def finish(self, batches: list[Tensor]) -> None:
        """Called once after the last step with a few training batches."""


class VAEStage(StageModule):
    """KL autoencoder (Kingma & Welling 2014); the KL weight is small: a smooth latent, not a poor one."""

    KL_WEIGHT = 2e-4

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        mean, logvar = self.model.triple_encoder.vae(x)
        z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        decoded = self._decode(z)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        squared, absolute = mse(decoded, x).mean(), charbonnier(decoded, x).mean()
        loss = 5 * squared + absolute + self.KL_WEIGHT * kl
        return {"loss": loss, "mse": squared, "kl": kl}

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        mean, _ = self.model.triple_encoder.vae(x)
        return self._decode(mean), torch.zeros_like(level)

    def _decode(self, z: Tensor) -> Tensor:
        grey = torch.full_like(F.interpolate(z[:, :3], scale_factor=16.0), 0.5)
        decoded: Tensor = self.model.vae_decoder(z, grey, no_noise(grey, self.model.config.noise))
        return decoded

    @torch.no_grad()
    def finish(self, batches: list[Tensor]) -> None:
        means = torch.cat([self.model.triple_encoder.vae(x)[0] for x in batches])
        self.model.latent_mean.copy_(means.mean((0, 2, 3)))
        self.model.latent_std.copy_(means.std((0, 2, 3)).clamp(min=1e-3))


class PixelStage(StageModule):
    """MSE codec on the distortion-oriented encoder alone: bpp + λ(level)·MSE, each sample at a level of its own."""

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        coarse, bpp, z_bpp = self._code(x, level)
        weight, squared = lambda_of(level), mse(coarse, x)
        # Divided by sqrt(λ) so that high qualities do not own the gradient.
        loss = ((bpp + weight * squared) * weight.rsqrt()).mean() * 3
        return {"loss": loss, "mse": squared.mean(), "bpp": bpp.mean(), "z_bpp": z_bpp.mean()}

    def _code(self, x: Tensor, level: Tensor, *, hard: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        model, pixels = self.model, x.shape[2] * x.shape[3]
        encoder = model.triple_encoder
        latents = model.latent_codec.analyse(encoder.fuse_distortion(encoder.distortion(x)))
        q = model.latent_codec(*latents, level, hard=hard)
        _, f16, _ = model.synthesis(q.y_hat, level)
        return model.reconstruction.coarse(f16), (q.y_bits + q.z_bits) / pixels, q.z_bits / pixels

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        coarse, bpp, _ = self._code(x, level, hard=True)
        return coarse, bpp


class SemanticStage(StageModule):
    """Distils a classifier's features into the semantic-oriented encoder: standardised activations at 1/8 and 1/16."""

    TAPS = (10, 14, 15)
    extras = ("fine.", "deep.")

    def __init__(self, model: SPRDiff, trains: tuple[str, ...], teacher: Path) -> None:
        super().__init__(model, trains)
        self.teacher = TinyDarknet(teacher)
        width = model.config.semantic[1]
        self.fine = up(width, 256)
        self.deep = nn.Conv2d(width, 512 + 128, 1)

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        with torch.no_grad():
            fine, *deep = (standardise(f) for f in self.teacher(x, self.TAPS))
        features = self.model.triple_encoder.semantic(x)
        loss_fine = F.smooth_l1_loss(self.fine(features), fine)
        loss_deep = F.smooth_l1_loss(self.deep(features), torch.cat(deep, 1))
        return {"loss": loss_fine + 2 * loss_deep, "fine": loss_fine, "deep": loss_deep}


def standardise(x: Tensor) -> Tensor:
    """Zero mean, unit variance of each channel over the batch."""
    return (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + 1e-3)


class DenoiseStage(StageModule):
    """Compression-oriented pretraining of the denoiser: a diffusion model on the frozen VAE's latents, given what a
    frozen codec says of the image.

    Half of the batch takes the codec's one step (t = 1 from ẑ without noise), half the diffusion objective
    (random t, noise); the estimate ẑ and the dual feature extraction learn along.
    """

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        with torch.no_grad():
            target = self.model.clean_latent(x)
            fused = self.model.triple_encoder(x)
            q = self.model.latent_codec(*self.model.latent_codec.analyse(fused), level)
        r = self.model.receive(q.y_hat, level)
        estimate = mse(r.z_est, target).mean()
        one, diffusion = self._denoise(target, r)
        return {"loss": estimate + one + diffusion, "estimate": estimate, "one": one, "diffusion": diffusion}

    def _denoise(self, z0: Tensor, r: Reconstruction) -> tuple[Tensor, Tensor]:
        n, z_est = z0.shape[0], r.z_est.detach()
        single = (torch.arange(n, device=z0.device) % 2 == 0).to(z0.dtype)
        t = torch.where(single > 0, torch.ones_like(single), torch.rand_like(single) * 0.95 + 0.05)
        noise = torch.randn_like(z0) * (1 - single)[:, None, None, None]
        predicted = self.model.denoiser(noised(z0, z_est, noise, t), t, r.c_pix, r.c_sem)
        # The velocity's error is that of z0 over t: small t would dominate, so it is capped.
        error = mse(predicted, z0)
        one = (error * single).sum() / single.sum()
        diffusion = (error * (1 - single) / t.clamp(min=0.3)).sum() / (1 - single).sum().clamp(min=1)
        return one, diffusion

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor] | None:
        decoded = self.model(x, level, hard=True)
        bits = decoded.quantised.y_bits + decoded.quantised.z_bits
        image = self.model.decode(decoded.reconstruction)
        return image, bits / (x.shape[2] * x.shape[3])


class CodecStage(DenoiseStage):
    """All of SPRDiff between the frozen VAE and semantic encoders and the frozen VAE decoder, together.

    Loss: rate + λ·D(x̃), plus the losses of ``DenoiseStage`` on the latent. D is squared error and MS-SSIM in shares
    that are worth about as many bits to each other.
    """

    LATENT_WEIGHT = 0.02
    SQUARED, STRUCTURE = 0.6, 0.008
    """Where one more bit lowers the squared error by 0.001, it raises MS-SSIM by 0.06 (Kodak, 0.01 to 0.03 bpp)."""

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        model, pixels = self.model, x.shape[2] * x.shape[3]
        with torch.no_grad():
            target = model.clean_latent(x)
            semantic = model.triple_encoder.semantic(x)
            latent, _ = model.triple_encoder.vae(x)
        fused = model.triple_encoder.fuse(model.triple_encoder.distortion(x), latent, semantic)
        q = model.latent_codec(*model.latent_codec.analyse(fused), level, hard=True)
        r = model.receive(q.y_hat, level)
        weight, squared, bpp = lambda_of(level), mse(r.coarse, x), (q.y_bits + q.z_bits) / pixels
        estimate = mse(r.z_est, target).mean()
        # The denoiser is the costliest part: a quarter of the batch is enough for it here, two samples at least,
        # one for the one step and one for the diffusion objective.
        some = slice(0, max(2, (x.shape[0] + 3) // 4))
        one, diffusion = self._denoise(target[some], Reconstruction(*(part[some] for part in r)))
        distortion = self.SQUARED * squared + self.STRUCTURE * (1 - structural_similarity(r.coarse, x))
        loss = ((bpp + weight * distortion) * weight.rsqrt()).mean() * 3
        loss = loss + self.LATENT_WEIGHT * (estimate + one + diffusion)
        return {"loss": loss, "mse": squared.mean(), "bpp": bpp.mean(), "z_bpp": (q.z_bits / pixels).mean(),
                "estimate": estimate, "one": one, "diffusion": diffusion}  # fmt: skip

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        decoded = self.model(x, level, hard=True)
        bits = decoded.quantised.y_bits + decoded.quantised.z_bits
        return decoded.reconstruction.coarse, bits / (x.shape[2] * x.shape[3])
