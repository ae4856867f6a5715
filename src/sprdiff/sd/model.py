"""Preset `sd`: SPRDiff on Stable-Diffusion-class parts.

    x ─ triple_encoder ─ latent_codec ═ bits ═ ŷ ─ synthesis ─ reconstruction ─ x̃, ẑ, c_pix, c_sem
        │ AutoencoderKL's encoder, frozen                                  └ denoiser ─ z0 ─ vae_decoder ─ x̂
        │ DINOv2, frozen                                 UNet2DConditionModel + LoRA ┘      └ AutoencoderKL's
        └ ELIC's g_a

The attributes and methods are those of `sprdiff.models.sprdiff.SPRDiff`, so that stages work on either.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import WeightsError
from ..models.latent_codec import LatentCodec, Quantised
from .config import SD, SDConfig
from .denoiser import SDDenoiser
from .loading import Base, Semantic
from .modules import SDDecoded, SDReceived, SDReconstruction, SDSynthesis
from .parts import SDTripleEncoder, SDVAEDecoder

PRETRAINED = ("triple_encoder.vae.", "triple_encoder.semantic.", "vae_decoder.", "denoiser.unet.")
"""Prefixes of the pretrained parts; the UNet's adapters and conv_in are trained all the same."""


class SDSPRDiff(nn.Module):
    """The whole codec. Images are [N,3,H,W] in 0-1, with sides that are multiples of 64; levels are [N] in
    0-255."""

    def __init__(self, config: SDConfig, base: Base, semantic: Semantic) -> None:
        super().__init__()
        self.config = config
        self.sources = {"base": base.source, "semantic": semantic.source}
        self.triple_encoder = SDTripleEncoder(config, base.vae, semantic.backbone)
        self.latent_codec = LatentCodec(config)
        self.synthesis = SDSynthesis(config)
        self.reconstruction = SDReconstruction(config)
        self.denoiser = SDDenoiser(config, base.unet, base.schedule)
        self.vae_decoder = SDVAEDecoder(base.vae)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(is_trained(name))

    def clean_latent(self, x: Tensor) -> Tensor:
        """Return the frozen VAE's latent of the original, which is the denoiser's target."""
        mean: Tensor = self.triple_encoder.vae(x)[0]
        return mean

    def decode_latent(self, z0: Tensor, base: Tensor | None = None) -> Tensor:
        """Decode a latent to an image."""
        out: Tensor = self.vae_decoder(z0)
        return out

    def receive(self, q: Quantised, level: Tensor) -> SDReceived:
        """Compute the coarse image, the latent estimate and both conditions from what is known exactly."""
        f64, f16, z_est = self.synthesis(q.y_hat, q.means, q.features, level)
        coarse, c_pix, c_sem = self.reconstruction(f64, f16)
        return SDReceived(coarse, z_est, c_pix, c_sem)

    def denoise_once(self, r: SDReceived) -> Tensor:
        """Take the one step of the codec: at the last timestep, from ẑ."""
        out: Tensor = self.denoiser(r.z_est, torch.ones_like(r.z_est[:, 0, 0, 0]), r.c_pix, r.c_sem)
        return out

    def forward(self, x: Tensor, level: Tensor, *, hard: bool = False) -> SDDecoded:
        """Run the codec; with ``hard`` the bits are those of a file, see `LatentCodec`."""
        quantised = self.latent_codec(*self.latent_codec.analyse(self.triple_encoder(x)), level, hard=hard)
        return SDDecoded(quantised, self.receive(quantised, level))

    def trained_state(self) -> dict[str, Tensor]:
        """Return the weights that are this project's, by name: all but those of the pretrained parts."""
        return {name: value for name, value in self.state_dict().items() if is_trained(name)}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`trained_state` returned, strictly.

        Raises:
            WeightsError: a weight is missing, unknown or of another shape.
        """
        own = self.trained_state()
        if missing := sorted(set(own) - set(state)):
            raise WeightsError(f"{len(missing)} weights are missing, such as {missing[0]}")
        if unknown := sorted(set(state) - set(own)):
            raise WeightsError(f"{len(unknown)} weights are unknown, such as {unknown[0]}")
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise WeightsError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}")
            value.copy_(state[name])

    def keep_frozen_in(self, dtype: torch.dtype) -> None:
        """Keep the weights that are not trained in a dtype, so that autocast need not cast them anew at every
        use."""
        for name, parameter in self.named_parameters():
            if name.startswith(PRETRAINED) and not is_trained(name):
                parameter.data = parameter.data.to(dtype)

    def gradient_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in UNet and VAE: activations are computed again in the backward pass.

        DINOv2 keeps its activations: transformers asks for training mode too, in which a frozen part never
        is.
        """
        again = functools.partial(checkpoint, use_reentrant=False)
        for module in self.modules():
            if module is not self and hasattr(module, "gradient_checkpointing"):
                vars(module).update(_gradient_checkpointing_func=again, gradient_checkpointing=enable)


def is_trained(name: str) -> bool:
    """Whether a weight of this name is trained here and is not part of a pretrained model."""
    return not name.startswith(PRETRAINED) or name.startswith("denoiser.unet.conv_in.") or ".lora_" in name


def build(base: Base, semantic: Semantic, config: SDConfig = SD) -> SDSPRDiff:
    """Build SPRDiff on loaded parts, whose networks become its own; the widths in `config` that are theirs
    are replaced."""
    config = dataclasses.replace(
        config,
        vae_latent=base.vae.config.latent_channels,
        semantic=semantic.backbone.config.hidden_size,
        cross_attention=base.unet.config.cross_attention_dim,
    )
    return SDSPRDiff(config, base, semantic)
