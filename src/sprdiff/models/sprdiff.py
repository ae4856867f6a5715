"""SPRDiff assembled: sender (triple encoder, latent codec), receiver (reconstruction, denoiser, VAE decoder).

x ─ triple_encoder ─ latent_codec ═ bits ═ ŷ ─ synthesis ─ reconstruction ─ x̃, ẑ, c_pix, c_sem
                                                                               └ denoiser ─ z0 ─ vae_decoder ─ x̂
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .blocks import blocks, conv, up
from .config import ModelConfig
from .denoiser import Denoiser
from .latent_codec import LatentCodec, Quantised
from .reconstruction import DistortionAwareReconstruction, Reconstruction, Synthesis, receive
from .triple_encoder import TripleEncoder


class VAEDecoder(nn.Module):
    """Latent [N,Z,H/16,W/16] -> image [N,3,H,W], nominally in 0-1, not clipped."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c16, c8, c4 = config.vae_decoder
        self.body = nn.Sequential(
            conv(config.vae_latent, c16),
            *blocks(c16, 2),
            up(c16, c8),
            *blocks(c8, 2),
            up(c8, c4),
            *blocks(c4, 1),
        )
        self.head = nn.Sequential(conv(c4, 48, 3), nn.PixelShuffle(4))

    def forward(self, z0: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(z0))
        return 0.25 * out + 0.5


class Decoded(NamedTuple):
    """Everything that a training step looks at."""

    quantised: Quantised
    reconstruction: Reconstruction


class SPRDiff(nn.Module):
    """The whole codec. Images are [N,3,H,W] in 0-1 with sides that are multiples of 64; levels [N] in 0-255."""

    def __init__(self, config: ModelConfig) -> None:
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

    def decode_latent(self, z0: Tensor) -> Tensor:
        """Standardised latent -> image."""
        out: Tensor = self.vae_decoder(unstandardise(z0, self.latent_mean, self.latent_std))
        return out

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
