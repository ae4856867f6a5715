"""SPRDiff assembled: sender (triple encoder, latent codec), receiver (reconstruction, flow, VAE decoder).

x ─ triple_encoder ─ latent_codec ═ bits ═ ŷ ─ synthesis ─ reconstruction ─ x̃, c_pix, c_sem
                                                                             └ flow, N steps ─ z0 ─ vae_decoder ─ x̂
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .flow import Flow
from .latent_codec import LatentCodec, Quantised
from .reconstruction import DistortionAwareReconstruction, Reconstruction, Synthesis
from .triple_encoder import TripleEncoder
from .vae import VAEDecoder


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
        self.flow = Flow(config)
        self.vae_decoder = VAEDecoder(config)
        # Standardises the VAE's latent (buffers, measured once its encoder is frozen): the flow sees unit variance.
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(config.vae_latent))
        self.register_buffer("latent_std", torch.ones(config.vae_latent))

    def receive(self, q: Quantised, level: Tensor) -> Reconstruction:
        """From what is known exactly to the coarse image and its features."""
        f32, f16 = self.synthesis(q.y_hat, q.means, q.features, level)
        return Reconstruction(self.reconstruction.coarse(f16), f32, f16)

    def standardised(self, z: Tensor) -> Tensor:
        """Return the VAE's latent as the flow sees it, [N,Z,h,w]."""
        return (z - self.latent_mean[None, :, None, None]) / self.latent_std[None, :, None, None]

    def decode_latent(self, z0: Tensor, coarse: Tensor) -> Tensor:
        """Return standardised latent and coarse image in 0-1 -> image."""
        out: Tensor = self.vae_decoder(unstandardise(z0, self.latent_mean, self.latent_std), coarse)
        return out

    def forward(self, x: Tensor, level: Tensor, *, hard: bool = False) -> Decoded:
        """Return ``hard``: the bits that a file costs, see LatentCodec."""
        quantised = self.latent_codec(*self.latent_codec.analyse(self.triple_encoder(x)), level, hard=hard)
        return Decoded(quantised, self.receive(quantised, level))


def unstandardise(z0: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return standardised latent [N,Z,h,w] -> the VAE's own scale; mean and std [Z]."""
    # Channels last: reshaped statistics would be folded into the exported graph, where no hash sees them.
    return (z0.movedim(1, -1) * std + mean).movedim(-1, 1)
