"""The denoiser of preset `sd`: one step of an adapted UNet2DConditionModel, from ẑ to the clean latent z0.

ẑ ‖ c_pix ─ conv_in ─ UNet + LoRA (c_sem as words) ─ out ─► z0 = a · ẑ + b · out + residual(c_pix)
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..models.blocks import conv, zero
from .checks import NoiseSchedule
from .config import SDConfig
from .loading import with_adapters
from .modules import tokens


class SDDenoiser(nn.Module):
    """One step of the UNet: z_t [N,Z,8h,8w], t [N] in (0,1], c_pix [N,P,8h,8w], c_sem [N,D,h,w] -> z0
    [N,Z,8h,8w].

    t = 1 is the last training timestep, where the codec takes its one step from ẑ. The pixel-level condition
    comes in beside the latent at a new conv_in and, by a 1x1 convolution, onto the output; both start at
    zero.

    With the base model's own prediction z0 is the scheduler's: (z - σ·out) / √ᾱ where it predicts noise,
    which multiplies every error of the UNet by σ/√ᾱ = 14.6. With ``clean`` z0 is a correction of z, of the
    same direction and damped until nothing is multiplied: z + w·((z - σ·out) / √ᾱ - z), w = √ᾱ/σ. Training
    then learns what is lacking.
    """

    alphas: Tensor

    def __init__(self, config: SDConfig, unet: Any, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.kind, self.damped = schedule.prediction, config.prediction == "clean"
        self.register_buffer("alphas", schedule.alphas, persistent=False)
        unet.conv_in = _wider(unet.conv_in, config.pixel_condition)
        self.unet = with_adapters(unet, config.lora_rank, config.lora_alpha)
        self.residual = conv(config.pixel_condition, config.vae_latent)
        zero(self.residual)

    def forward(
        self, z_t: Tensor, t: Tensor, c_pix: Tensor, c_sem: Tensor, pooled: Tensor | None = None
    ) -> Tensor:
        """Compute the clean latent in float32, whatever the precision around it is.

        Args:
            pooled: [N,D], the mean of c_sem over the picture, where this is one tile of it.
        """
        step = (t.float() * len(self.alphas)).ceil().long().clamp(1, len(self.alphas)) - 1
        kind = self.unet.conv_in.weight.dtype
        sample = torch.cat([z_t, c_pix.to(z_t.dtype)], dim=1).to(kind)
        out = self.unet(
            sample, step, encoder_hidden_states=tokens(c_sem, pooled).to(kind), return_dict=False
        )[0]
        with _without_autocast(z_t.device):
            z0: Tensor = self.clean(z_t.float(), out.float(), step) + self.residual(c_pix.float())
        return z0

    def clean(self, z_t: Tensor, out: Tensor, step: Tensor) -> Tensor:
        """Return the clean latent that an output of the UNet stands for, in the precision of its
        arguments."""
        of_z, of_out = (factor.to(z_t.dtype)[:, None, None, None] for factor in self._factors(step))
        return of_z * z_t + of_out * out

    @property
    def gain(self) -> float:
        """The factor by which the codec's one step multiplies errors of the UNet's output."""
        return float(self._factors(torch.tensor([len(self.alphas) - 1], device=self.alphas.device))[1].abs())

    def _factors(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of z_t and of the UNet's output in the clean latent, each [N]."""
        alpha = self.alphas[step]
        signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
        if self.kind == "sample":
            return torch.zeros_like(alpha), torch.ones_like(alpha)
        of_z, of_out = (signal, -noise) if self.kind == "v_prediction" else (1 / signal, -noise / signal)
        if self.damped:
            share = (1 / of_out.abs()).clamp(max=1)
            of_z, of_out = 1 - share + share * of_z, share * of_out
        return of_z, of_out


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Switch autocast off; tensors without memory, with which costs are counted, know no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _wider(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return a conv_in that takes further channels: it has the pretrained kernel for the latent and zeros for
    them."""
    window: Any = (old.kernel_size, old.stride, old.padding)
    new = nn.Conv2d(old.in_channels + channels, old.out_channels, *window)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        assert new.bias is not None and old.bias is not None
        new.bias.copy_(old.bias)
    return new.to(old.weight.dtype)
