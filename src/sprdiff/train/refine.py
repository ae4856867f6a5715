"""Stage ``refine``: adversarial and perceptual training of the decoder side, entropy path and coarse image frozen.

    x̂ = vae_decoder(denoiser(ẑ | c_pix, c_sem), x̃, noise) against x:  L1 + features + adversarial;  x̃ stays what it was.

Two critics. One sees patches of the image at two scales together with the coarse image, which is what the decoded
latent looks like: it judges whether the texture is natural *given* the file, not whether the picture is plausible.
The other sees the features of a frozen classifier (Projected GANs, Sauer et al. 2021): it learns in a tenth of the
steps, and what it asks for is statistics of texture, not single pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..models.flow import noised
from ..models.latent_codec import lambda_of
from ..models.reconstruction import Reconstruction
from ..models.sprdiff import SPRDiff
from .losses import FeatureLoss, charbonnier, grid_energy, mse, structural_similarity
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


class ImageCritic(nn.Module):
    """Patch discriminators at full and half resolution; logits of each, [N,1,h,w]."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = PatchDiscriminator(), PatchDiscriminator()

    def forward(self, image: Tensor, condition: Tensor) -> list[Tensor]:
        small = [F.avg_pool2d(t, 2) for t in (image, condition)]
        return [self.fine(image, condition), self.coarse(*small)]


class FeatureCritic(nn.Module):
    """A small critic on each of several layers of a frozen classifier; logits of each, [N,1,h,w]."""

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(cin, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 3, padding=1)),
            )
            for cin in channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [head(f) for head, f in zip(self.heads, features, strict=True)]


class Critics(nn.Module):
    """Both critics, and their hinge loss (Lim & Ye 2017): every head counts the same."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.image, self.features = ImageCritic(), FeatureCritic(channels)

    def fool(self, image: Tensor, condition: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the decoder minimises, of each critic; the critics' own weights do not learn from it."""
        parameters = list(self.parameters())
        for p in parameters:
            p.requires_grad_(False)
        fooled = [
            -mean_of([v.mean() for v in found]) for found in (self.image(image, condition), self.features(features))
        ]
        for p in parameters:
            p.requires_grad_(True)
        return fooled[0], fooled[1]

    def loss(self, real: Judged, fake: Judged) -> Tensor:
        """What the critics minimise."""
        terms = []
        for image, condition, features, sign in ((*real, -1), (*fake, 1)):
            logits = [*self.image(image, condition), *self.features(features)]
            terms.append(mean_of([F.relu(1 + sign * v).mean() for v in logits]))
        return terms[0] + terms[1]


Judged = tuple[Tensor, Tensor, Sequence[Tensor]]
"""An image, the coarse image beside it, and its features."""


def mean_of(values: Sequence[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(values)).mean()


def shifted(*images: Tensor, reach: int = 16) -> list[Tensor]:
    """The same cut of all images, its corner drawn from the first 16x16 pixels, its size that of what is left."""
    top, left = (int(v) for v in torch.randint(reach, (2,)))
    height, width = (side - reach for side in images[0].shape[2:])
    return [image[:, :, top : top + height, left : left + width] for image in images]


def with_lows_of(reference: Tensor, image: Tensor, stride: int = 8) -> Tensor:
    """The image with its low frequencies taken from another.

    A critic that sees tones and colours pulls them to and fro; here it can only ask for detail.
    """

    def low(t: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(t, stride), t.shape[2:], mode="bilinear", align_corners=False)

    return image - low(image) + low(reference)


def viewed(*images: Tensor) -> list[Tensor]:
    """The images turned, mirrored, scaled and recoloured at random, all alike.

    One network's features have blind spots that a decoder finds within a few hundred steps; under random views there
    is no single network to please (E-LPIPS, Kettunen et al. 2019), and what is learned holds for other networks too.
    """
    turns, mirror = int(torch.randint(4, ())), bool(torch.rand(()) < 0.5)
    scale = float(2 ** (1.3 * torch.rand(()) - 1))  # 0.5 to 1.23
    device = images[0].device
    gain, shift = (1 + 0.2 * torch.randn(1, 3, 1, 1)).to(device), (0.1 * torch.randn(1, 3, 1, 1)).to(device)
    height, width = (max(64, 16 * round(side * scale / 16)) for side in images[0].shape[2:])
    found = []
    for image in images:
        image = F.interpolate(image, (height, width), mode="bilinear", antialias=True, align_corners=False)
        image = torch.rot90(image.flip(3) if mirror else image, turns, (2, 3))
        found.append((image - 0.5) * gain + 0.5 + shift)
    return found


class RefineStage(StageModule):
    """Perceptual fine-tuning of denoiser, dual feature extraction and VAE decoder, in the one step they are used in.

    The terms pull at the image by stated shares: the gradient of each is brought to the size of the distortion's first
    (the balancer of EnCodec, Défossez et al. 2022), since their natural sizes differ a hundredfold and change as the
    critics learn. The critics are heard late: while they still learn they drive the decoder into a grid. Part of the
    batch keeps the diffusion objective, so several steps stay possible at decode. High qualities weigh the pixels
    more than low ones: there is less to invent.
    """

    SHARES = MappingProxyType(
        {
            "distortion": 1.0,
            "feature": 40.0,
            "statistics": 40.0,
            "grid": 2.0,
            "critic_image": 0.0,
            "critic_features": 0.0,
        }
    )
    """Of the last legs of the shipped weights; earlier ones had 20 to 60 for statistics (dev/LOG.md). Critics with
    shares of 0.8 to 3 and 12 to 25 made patterns within the 2,000 steps of half an hour of a core (35 there); with a
    day of a GPU they are worth another trial, late and small. So are energy scores of two draws (54, 55)."""
    DISTORTION = MappingProxyType({"pixel": 9.0, "absolute": 0.6, "structure": 0.9})
    LATENT_WEIGHT = 0.02
    CRITIC_TAPS = (4, 8, 12)

    extras = ("critics.", "sizes")
    CRITICS_FROM, CRITICS_RAMP = 600, 1000

    def __init__(self, model: SPRDiff, trains: tuple[str, ...], teacher: Path) -> None:
        super().__init__(model, trains)
        self.features = FeatureLoss(teacher)
        taps: tuple[int, ...] = FeatureLoss.TAPS
        self.judged: tuple[int, ...] = tuple(taps.index(tap) for tap in self.CRITIC_TAPS)
        widths: list[int] = self.features.network.widths
        self.critics = Critics([int(widths[tap - 1]) for tap in self.CRITIC_TAPS])
        self.critics.requires_grad_(self._criticised())
        self.sizes: Tensor
        self.register_buffer("sizes", torch.zeros(len(self.SHARES)))

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        with torch.no_grad():
            target = self.model.clean_latent(x)
            f32, f16, z_est, coarse = self._frozen(x, level)
        c_pix, c_sem = self.model.reconstruction.conditions(coarse, f32, f16)
        r = Reconstruction(coarse, z_est, c_pix, c_sem)
        z0 = self.model.denoise_once(r)
        decoded = self.model.decode_latent(z0, coarse, self.model.draw_noise(coarse))
        terms, critic, scalars = self._judge(x, decoded, coarse, level)
        latent = self._diffusion(r, target) + 0.2 * mse(z0, target).mean()
        loss = self._balanced(decoded, terms) + self.LATENT_WEIGHT * latent + critic
        named = {name: term.detach() for name, term in terms.items()}
        return {"loss": loss, "critic": critic.detach(), "latent": latent.detach(), **named, **scalars}

    def _judge(self, x: Tensor, decoded: Tensor, coarse: Tensor, level: Tensor) -> tuple[Scalars, Tensor, Scalars]:
        """The terms of the decoded image, the loss of the critics, and what is only logged."""
        # Pooling and strides have a phase. Judged always at the same one, the decoder learns a grid that only it
        # can see; so all that judges looks at a randomly shifted cut, and the features at a random view of it.
        terms = {"distortion": self._distortion(decoded, x, level), "grid": grid_energy(decoded - x).mean()}
        x, decoded, condition = shifted(x, decoded, coarse.clamp(0, 1))
        seen_as = viewed(x, decoded)
        with torch.no_grad():
            real = self._features_of(seen_as[0])
        fake = self._features_of(seen_as[1])
        terms["feature"] = self.features.distance(fake, real).mean()
        terms["statistics"] = self.features.statistics(fake, real).mean()
        if not self._criticised():
            return terms, torch.zeros_like(terms["grid"]).detach(), {"mse": mse(decoded, x).mean().detach()}
        # Of one size in every layer, by the real ones: raw activations differ tenfold.
        sizes = [real[i].square().mean().rsqrt() for i in self.judged]
        seen = [[f[i] * size for i, size in zip(self.judged, sizes, strict=True)] for f in (real, fake)]
        decoded = with_lows_of(x, decoded)
        terms["critic_image"], terms["critic_features"] = self.critics.fool(decoded, condition, seen[1])
        critic = self.critics.loss(
            (x, condition, seen[0]), (decoded.detach(), condition, [f.detach() for f in seen[1]])
        )
        return terms, critic, {"mse": mse(decoded, x).mean().detach()}

    def _features_of(self, x: Tensor) -> list[Tensor]:
        """Activations of Tiny Darknet, and of our own semantic encoder: what pleases both is likelier to be seen."""
        return [*self.features.activations(x), self.model.triple_encoder.semantic(x)]

    def _used(self) -> list[str]:
        """Names of the terms that have a share; the distortion is the first."""
        return [name for name, share in self.SHARES.items() if share > 0]

    def _criticised(self) -> bool:
        return any(name.startswith("critic") for name in self._used())

    def _balanced(self, decoded: Tensor, terms: Scalars) -> Tensor:
        """The terms, each by its share and brought to the size of the first: that of its gradient at the image."""
        names = self._used()
        places = [list(self.SHARES).index(name) for name in names]
        sizes = self.sizes[places]
        if decoded.requires_grad:
            gradients = [torch.autograd.grad(terms[name], decoded, retain_graph=True)[0] for name in names]
            with torch.no_grad():
                found = 1e3 * torch.stack([g.square().mean().sqrt() for g in gradients])  # fp16 can keep it
                # A term that an earlier leg did not have starts at its own size, not at a fiftieth of it.
                sizes = torch.where(sizes == 0, found, 0.98 * sizes + 0.02 * found)
                self.sizes[places] = sizes
        heard = min(1.0, max(0.0, (self.step - self.CRITICS_FROM) / self.CRITICS_RAMP))
        shares = [self.SHARES[name] * (heard if name.startswith("critic") else 1.0) for name in names]
        factors = sizes[0] / sizes.clamp(min=1e-12) * torch.tensor(shares, device=decoded.device)
        value = (factors * torch.stack([terms[name].detach() for name in names])).sum()
        if not decoded.requires_grad:
            return value
        pull = sum(g * f for g, f in zip(gradients, factors, strict=True))
        stand_in = (decoded * pull).sum()  # has this gradient, at the cost of one pass through the decoder
        return value + stand_in - stand_in.detach()

    def _frozen(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codec = self.model.latent_codec
        q = codec(*codec.analyse(self.model.triple_encoder(x)), level)
        f32, f16, z_est = self.model.synthesis(q.y_hat, level)
        return f32, f16, z_est, self.model.reconstruction.coarse(f16)

    def _distortion(self, decoded: Tensor, x: Tensor, level: Tensor) -> Tensor:
        # (λ/λ_mid)^¼: from 0.54 at the lowest quality to 1.6 at the highest.
        weight, shares = (lambda_of(level) / 8.5) ** 0.25, self.DISTORTION
        fidelity = weight * (shares["pixel"] * mse(decoded, x) + shares["absolute"] * charbonnier(decoded, x))
        structure = shares["structure"] * (1 - structural_similarity(decoded, x))
        return (fidelity + structure).mean()

    def _diffusion(self, r: Reconstruction, target: Tensor) -> Tensor:
        # A quarter of the batch: enough to keep what the codec stage taught.
        part = slice(0, max(1, target.shape[0] // 4))
        z0, z_est = target[part], r.z_est[part]
        t = torch.rand(z0.shape[0], device=z0.device) * 0.9 + 0.05
        predicted = self.model.denoiser(noised(z0, z_est, torch.randn_like(z0), t), t, r.c_pix[part], r.c_sem[part])
        return mse(predicted, z0).mean()

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        decoded = self.model(x, level, hard=True)
        coarse = decoded.reconstruction.coarse
        image = self.model.decode(decoded.reconstruction, self.model.draw_noise(coarse, seed=0))
        bits = decoded.quantised.y_bits + decoded.quantised.z_bits
        return image, bits / (x.shape[2] * x.shape[3])
