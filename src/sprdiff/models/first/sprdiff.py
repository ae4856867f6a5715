"""SPRDiff assembled: sender (triple encoder, latent codec), receiver (reconstruction, denoiser, VAE decoder).

x ─ triple_encoder ─ latent_codec ═ bits ═ ŷ ─ synthesis ─ reconstruction ─ x̃, ẑ, c_pix, c_sem
                                                                               └ denoiser ─ z0 ─ vae_decoder ─ x̂
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..latent_codec import LatentCodec, Quantised
from .config import FirstConfig
from .denoiser import Denoiser
from .reconstruction import DistortionAwareReconstruction, Reconstruction, Synthesis, receive
from .triple_encoder import TripleEncoder
from .vae_decoder import VAEDecoder, no_noise


class Decoded(NamedTuple):
    """Everything that a training step looks at."""

    quantised: Quantised
    reconstruction: Reconstruction


class SPRDiff(nn.Module):
    """The whole codec. Images are [N,3,H,W] in 0-1 with sides that are multiples of 64; levels [N] in 0-255."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.config = config
        self.triple_encoder = TripleEncoder(config)
        self.latent_codec = LatentCodec(config)
        self.synthesis = Synthesis(config)
        self.reconstruction = DistortionAwareReconstruction(config)
        self.denoiser = Denoiser(config)
        self.vae_decoder = VAEDecoder(config)
        # Standardises the frozen VAE's latent (buffers, measured once by stage `vae`): the denoiser sees unit variance.
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(config.vae_latent))
        self.register_buffer("latent_std", torch.ones(config.vae_latent))

    def clean_latent(self, x: Tensor) -> Tensor:
        """The frozen VAE's latent of the original, standardised: the denoiser's training target."""
        mean, _ = self.triple_encoder.vae(x)
        return (mean - self.latent_mean[None, :, None, None]) / self.latent_std[None, :, None, None]

    def decode_latent(self, z0: Tensor, base: Tensor, noise: Tensor | None = None) -> Tensor:
        """Standardised latent and coarse image -> image; None: no noise."""
        noise = no_noise(base, self.config.noise) if noise is None else noise
        latent = unstandardise(z0, self.latent_mean, self.latent_std)
        out: Tensor = self.vae_decoder(latent, base.clamp(0, 1), noise)
        return out

    def decode(self, r: Reconstruction, noise: Tensor | None = None) -> Tensor:
        """The decoded image of the one step."""
        return self.decode_latent(self.denoise_once(r), r.coarse, noise)

    def draw_noise(self, base: Tensor, seed: int | None = None) -> Tensor:
        """Noise for `decode`, from torch's generator or a seed."""
        zeros = no_noise(base, self.config.noise)
        if seed is None:
            return torch.randn_like(zeros)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(zeros.shape, generator=generator).to(zeros.device)

    def receive(self, y_hat: Tensor, level: Tensor) -> Reconstruction:
        """From unscaled ŷ to the coarse image, the latent estimate and both conditions."""
        return receive(self.synthesis, self.reconstruction, y_hat, level)

    def denoise_once(self, r: Reconstruction) -> Tensor:
        """The one step the codec takes: t = 1 from ẑ, no noise."""
        out: Tensor = self.denoiser(r.z_est, torch.ones_like(r.z_est[:, 0, 0, 0]), r.c_pix, r.c_sem)
        return out

    def forward(self, x: Tensor, level: Tensor, *, hard: bool = False) -> Decoded:
        """``hard``: the bits that a file costs, see LatentCodec."""
        quantised = self.latent_codec(*self.latent_codec.analyse(self.triple_encoder(x)), level, hard=hard)
        return Decoded(quantised, self.receive(quantised.y_hat, level))


def unstandardise(z0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardised latent [N,Z,h,w] -> the VAE's own scale; mean and std [Z]."""
    # Channels last: reshaped statistics would be folded into the exported graph, where no hash sees them.
    return (z0.movedim(1, -1) * std + mean).movedim(-1, 1)
