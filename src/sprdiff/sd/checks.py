"""Checks of the configurations of pretrained parts, before their weights are loaded for preset `sd`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common.files import read_object
from ..errors import WeightsError
from .hub import Source, brief

PATCH = 14
"""The side of DINOv2's patches in pixels."""


class NoiseSchedule(NamedTuple):
    """The part of a scheduler's configuration that one step needs.

    Attributes:
        prediction: what the UNet predicts: ``epsilon``, ``v_prediction`` or ``sample``.
        alphas: cumulative products ᾱ_t, float32 [T].
    """

    prediction: str
    alphas: Tensor


def read_schedule(source: Source) -> NoiseSchedule:
    """Read the prediction type and ᾱ of ``scheduler/scheduler_config.json``, as diffusers' schedulers compute
    them.

    Raises:
        WeightsError: one step cannot be taken with a scheduler of this kind.
    """
    config = read_object(source.folder / "scheduler" / "scheduler_config.json", WeightsError)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise WeightsError(
            f"the scheduler of {source.name} predicts {prediction!r} and not epsilon, v_prediction or sample"
        )
    try:
        alphas = _alphas(config)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(f"the scheduler of {source.name} cannot be computed: {brief(error)}") from error
    if prediction == "epsilon" and float(alphas[-1]) < 1e-6:
        raise WeightsError(
            f"the scheduler of {source.name} ends in pure noise, of which epsilon tells nothing: "
            "one step needs a model that predicts v or the sample"
        )
    return NoiseSchedule(prediction, alphas.float())


def _alphas(config: dict[str, Any]) -> Tensor:
    """Return ᾱ_t, float64 [T]; with `rescale_betas_zero_snr` by algorithm 1 of Lin et al. (WACV 2024)."""
    rule, count = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif rule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    elif rule == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float64)
    else:
        raise ValueError(f"the beta schedule is {rule!r} and not linear or scaled_linear")
    alphas = torch.cumprod(1 - betas, 0)
    if config.get("rescale_betas_zero_snr"):
        root = alphas.sqrt()
        alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return alphas


def check_class(source: Source, sub: str, key: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return the configuration of one network, which must name one of the wanted classes.

    Raises:
        WeightsError: it names another.
    """
    config = read_object(source.folder / sub / "config.json", WeightsError)
    if config.get(key) not in wanted:
        where = f"{sub}/" if sub else ""
        raise WeightsError(
            f"{source.name}: {where}config.json names {config.get(key)!r} but {wanted[0]} is needed"
        )
    return config


def check_widths(source: Source, vae: dict[str, Any], unet: dict[str, Any]) -> None:
    """Refuse a VAE and a UNet that do not belong to one model of the class of Stable Diffusion 1.x or 2.x.

    Raises:
        WeightsError: latents do not fit, the VAE is not at 1/8, or the UNet wants what the codec does not
            have.
    """
    latent = vae.get("latent_channels", 4)
    for key in ("in_channels", "out_channels"):
        if unet.get(key, 4) != latent:
            raise WeightsError(
                f"{source.name}: the UNet's {key} are {unet.get(key, 4)} but the VAE's latent has "
                f"{latent} channels: give a text-to-image model of SD 1.x or 2.x class"
            )
    if not all(isinstance(config.get("block_out_channels", []), list) for config in (vae, unet)):
        raise WeightsError(f"{source.name}: block_out_channels is no list")
    if (ratio := 2 ** (len(vae.get("block_out_channels", [0])) - 1)) != 8:
        raise WeightsError(f"{source.name}: the VAE's latent is at 1/{ratio} of the image but 1/8 is needed")
    strange = [k for k in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if unet.get(k)]
    if strange or not isinstance(unet.get("cross_attention_dim", 1280), int):
        reason = strange[0] if strange else "several cross_attention_dim"
        raise WeightsError(
            f"{source.name}: the UNet has {reason}, as SDXL-class models do: give a model of SD 1.x or 2.x"
        )
    if 2 ** (len(unet.get("block_out_channels", [0] * 4)) - 1) > 8:
        raise WeightsError(f"{source.name}: the UNet halves its latent more than three times")
