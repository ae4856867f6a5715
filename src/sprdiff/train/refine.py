"""Stage ``refine``: adversarial and perceptual training of the decoder side, entropy path and coarse image frozen.

    x̂ = vae_decoder(denoiser(ẑ | c_pix, c_sem)) against x:  L1 + features + adversarial;  x̃ stays what it was.

The discriminator sees patches of the image at two scales together with the coarse image, which is what the decoded
latent looks like: it judges whether the texture is natural *given* the file, not whether the picture is plausible.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..models.denoiser import noised
from ..models.reconstruction import Reconstruction
from ..models.sprdiff import SPRDiff
from .losses import FeatureLoss, charbonnier, grid_energy, lambda_of, mse
from .stages import Scalars, StageModule


class PatchDiscriminator(nn.Module):
    """[N,6,H,W] (image and condition) -> logits [N,1,H/16,W/16]; a convolutional patch critic (Isola et al. 2017).

    Spectral norm bounds its slope; strided 4x4 kernels on an unshuffled input leave no checkerboard to exploit.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        sizes = (6 * 4, width, 2 * width, 4 * width)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for cin, cout in pairwise(sizes):
            layers += [spectral_norm(nn.Conv2d(cin, cout, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1)))
        self.body = nn.Sequential(*layers)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = self.body(torch.cat([image, condition], 1) * 2 - 1)
        return out


class Critic(nn.Module):
    """Patch discriminators at full and half resolution; logits of all patches, [N, patches]."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = PatchDiscriminator(), PatchDiscriminator()

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        small = [F.avg_pool2d(t, 2) for t in (image, condition)]
        return torch.cat([self.fine(image, condition).flatten(1), self.coarse(*small).flatten(1)], dim=1)


def shifted(*images: Tensor, reach: int = 16) -> list[Tensor]:
    """The same cut of all images, its corner drawn from the first 16x16 pixels, its size that of what is left."""
    top, left = (int(v) for v in torch.randint(reach, (2,)))
    height, width = (side - reach for side in images[0].shape[2:])
    return [image[:, :, top : top + height, left : left + width] for image in images]


class RefineStage(StageModule):
    """Perceptual fine-tuning of denoiser, dual feature extraction and VAE decoder, in the one step they are used in.

    Hinge loss (Lim & Ye 2017), heard late and softly: a critic that is still learning drives the decoder into a grid.
    The features weigh what LPIPS 1 against squared error 8 does in the anchors. Part of the batch keeps the diffusion
    objective, so several steps stay possible at decode. High qualities weigh the pixels more than low ones: there
    is less to invent.
    """

    WEIGHTS = MappingProxyType(
        {"pixel": 9.0, "absolute": 0.6, "feature": 0.12, "grid": 5000.0, "adversarial": 0.01, "latent": 0.02}
    )

    extras = ("critic.",)
    ADVERSARIAL_FROM, ADVERSARIAL_RAMP = 600, 1000

    def __init__(self, model: SPRDiff, trains: tuple[str, ...], teacher: Path) -> None:
        super().__init__(model, trains)
        self.features = FeatureLoss(teacher)
        self.critic = Critic()

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        with torch.no_grad():
            target = self.model.clean_latent(x)
            f32, f16, z_est, coarse = self._frozen(x, level)
        c_pix, c_sem = self.model.reconstruction.conditions(coarse, f32, f16)
        r = Reconstruction(coarse, z_est, c_pix, c_sem)
        z0 = self.model.denoise_once(r)
        decoded = self.model.decode_latent(z0)
        # Pooling and strides have a phase. Judged always at the same one, the decoder learns a grid that only it
        # can see; so all that judges looks at a randomly shifted cut, and the features at one of two scales.
        terms = self._distortion(decoded, x, level)
        x, decoded, condition = shifted(x, decoded, coarse.clamp(0, 1))
        half = torch.rand(()) < 0.5
        terms["feature"] = self.features(*(F.avg_pool2d(t, 2) if half else t for t in (decoded, x))).mean()
        real, fake = self.critic(x, condition), self.critic(decoded.detach(), condition)
        critic = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        terms["latent"] = self._diffusion(r, target) + 0.2 * mse(z0, target).mean()
        terms["adversarial"] = self._fool(decoded, condition)
        # The critic learns from the first step; the decoder listens to it once it has something to say.
        heard = min(1.0, max(0.0, (self.step - self.ADVERSARIAL_FROM) / self.ADVERSARIAL_RAMP))
        weights = {**self.WEIGHTS, "adversarial": heard * self.WEIGHTS["adversarial"]}
        loss = sum((weights[k] * v for k, v in terms.items()), start=critic)
        return {"loss": loss, "critic": critic.detach(), "mse": mse(decoded, x).mean(), **terms}

    def _frozen(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codec = self.model.latent_codec
        q = codec(*codec.analyse(self.model.triple_encoder(x)), level)
        f32, f16, z_est = self.model.synthesis(q.y_hat, level)
        return f32, f16, z_est, self.model.reconstruction.coarse(f16)

    def _distortion(self, decoded: Tensor, x: Tensor, level: Tensor) -> Scalars:
        # (λ/λ_mid)^¼: from 0.54 at the lowest quality to 1.6 at the highest.
        weight = (lambda_of(level) / 8.5) ** 0.25
        return {
            "pixel": (weight * mse(decoded, x)).mean(),
            "absolute": (weight * charbonnier(decoded, x)).mean(),
            "grid": grid_energy(decoded - x).mean(),
        }

    def _diffusion(self, r: Reconstruction, target: Tensor) -> Tensor:
        # A quarter of the batch: enough to keep what the codec stage taught.
        part = slice(0, max(1, target.shape[0] // 4))
        z0, z_est = target[part], r.z_est[part]
        t = torch.rand(z0.shape[0], device=z0.device) * 0.9 + 0.05
        predicted = self.model.denoiser(noised(z0, z_est, torch.randn_like(z0), t), t, r.c_pix[part], r.c_sem[part])
        return mse(predicted, z0).mean()

    def _fool(self, decoded: Tensor, condition: Tensor) -> Tensor:
        # The critic's own weights must not learn from the generator's term.
        parameters = list(self.critic.parameters())
        for p in parameters:
            p.requires_grad_(False)
        fooled = -self.critic(decoded, condition).mean()
        for p in parameters:
            p.requires_grad_(True)
        return fooled

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        decoded = self.model(x, level, hard=True)
        image = self.model.decode_latent(self.model.denoise_once(decoded.reconstruction))
        bits = decoded.quantised.y_bits + decoded.quantised.z_bits
        return image, bits / (x.shape[2] * x.shape[3])
