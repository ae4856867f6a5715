"""The first generation assembled, with the names that its weights have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..latent_codec import LatentCodec
from .config import FirstConfig
from .reconstruction import DistortionAwareReconstruction, Synthesis
from .weights_only import Denoiser, TripleEncoder, VAEDecoder


class SPRDiff(nn.Module):
    """All networks of the first generation; refinement runs the latent codec, the synthesis and the coarse
    image."""

    def __init__(self, config: FirstConfig) -> None:
        super().__init__()
        self.config = config
        self.triple_encoder = TripleEncoder(config)
        self.latent_codec = LatentCodec(config)
        self.synthesis = Synthesis(config)
        self.reconstruction = DistortionAwareReconstruction(config)
        self.denoiser = Denoiser(config)
        self.vae_decoder = VAEDecoder(config)
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(config.vae_latent))
        self.register_buffer("latent_std", torch.ones(config.vae_latent))
