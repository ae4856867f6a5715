"""Preset `sd`: SPRDiff on Stable-Diffusion-class parts. The only file that imports diffusers, transformers and peft.

    x ─ triple_encoder ─ latent_codec ═ bits ═ ŷ ─ synthesis ─ reconstruction ─ x̃, ẑ, c_pix, c_sem
        │ AutoencoderKL's encoder, frozen                                         └ denoiser ─ z0 ─ vae_decoder ─ x̂
        │ DINOv2, frozen                                        UNet2DConditionModel + LoRA ┘      └ AutoencoderKL's
        └ ELIC's g_a

The attributes and methods are those of `sprdiff.models.sprdiff.SPRDiff`, so that stages work on either.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Dinov2Model, Dinov2WithRegistersModel
from transformers.utils import logging

from ..errors import WeightsError
from ..models.blocks import conv, zero
from ..models.latent_codec import LatentCodec
from .checks import PATCH, Schedule, check_class, check_widths, read_schedule
from .config import SD, SDConfig
from .elic import ElicAnalysis
from .hub import DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS, Source, brief, locate
from .modules import SDDecoded, SDReceived, SDReconstruction, SDSynthesis, tokens

__all__ = ["SD", "Base", "SDConfig", "SDSPRDiff", "Semantic", "Schedule", "build", "load_base", "load_semantic"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ADAPTER = "sprdiff"
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv", "conv1",
                "conv2", "conv_shortcut", "conv_out"]  # fmt: skip
"""Ends of the names of the UNet's layers that get an adapter: those of StableCodec (conv_in is replaced instead)."""
PRETRAINED = ("triple_encoder.vae.", "triple_encoder.semantic.", "vae_decoder.", "denoiser.unet.")
"""Prefixes of the pretrained parts; of the UNet, adapters and conv_in are trained all the same."""


@dataclasses.dataclass(frozen=True)
class Base:
    """The parts of a Stable-Diffusion-class model that are used: AutoencoderKL, UNet2DConditionModel, schedule."""

    vae: Any
    unet: Any
    schedule: Schedule
    source: Source


@dataclasses.dataclass(frozen=True)
class Semantic:
    """A DINOv2 backbone: Dinov2Model or Dinov2WithRegistersModel."""

    backbone: Any
    source: Source


class SDVAEEncoder(nn.Module):
    """AutoencoderKL's encoder: image [N,3,H,W] in 0-1 -> scaled mean and log variance, each [N,Z,H/8,W/8]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quantise = vae.quant_conv if vae.quant_conv is not None else nn.Identity()
        self.shift, self.scale = float(vae.config.shift_factor or 0), float(vae.config.scaling_factor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.quantise(self.encoder(_like(2 * x - 1, self.encoder))).to(x.dtype)
        mean, logvar = moments.chunk(2, dim=1)
        return (mean - self.shift) * self.scale, logvar + 2 * math.log(self.scale)


class SDVAEDecoder(nn.Module):
    """AutoencoderKL's decoder: scaled latent [N,Z,H/8,W/8] -> image [N,3,H,W], nominally in 0-1, not clipped."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.unquantise = vae.post_quant_conv if vae.post_quant_conv is not None else nn.Identity()
        self.shift, self.scale = float(vae.config.shift_factor or 0), float(vae.config.scaling_factor)

    def forward(self, z0: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.unquantise(_like(z0 / self.scale + self.shift, self.decoder)))
        return 0.5 * out.to(z0.dtype) + 0.5


class SDSemanticEncoder(nn.Module):
    """DINOv2: image [N,3,H,W] in 0-1 -> features [N,S,H/16,W/16].

    The image is resized by 14/16, so that patches of 14 pixels are the grid 1/16; class and register tokens,
    which belong to no place, are dropped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone(pixel_values=self._resized(x)).last_hidden_state
        return self._map(out, x)

    def levels(self, x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Features after the given layers (0: embeddings), each [N,S,H/16,W/16]; gradients reach the image."""
        states = self.backbone(pixel_values=self._resized(x), output_hidden_states=True).hidden_states
        return [self._map(states[layer], x) for layer in layers]

    def _resized(self, x: Tensor) -> Tensor:
        size = [side // 16 * PATCH for side in x.shape[2:]]
        small = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
        return _like((small - self.mean) / self.std, self.backbone)

    @staticmethod
    def _map(states: Tensor, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // 16, x.shape[3] // 16
        patches = states[:, -rows * columns :]
        return patches.transpose(1, 2).reshape(states.shape[0], -1, rows, columns).to(x.dtype)


class SDTripleEncoder(nn.Module):
    """The three encoders and their fusion at 1/16: image [N,3,H,W] in 0-1 -> [N,F,H/16,W/16]."""

    def __init__(self, config: SDConfig, vae: Any, semantic: Semantic) -> None:
        super().__init__()
        self.vae = SDVAEEncoder(vae)
        self.distortion = ElicAnalysis(config.distortion)
        self.semantic = SDSemanticEncoder(semantic.backbone)
        self.fuse_distortion = conv(config.distortion[1], config.fused)
        self.fuse_others = conv(4 * config.vae_latent + config.semantic, config.fused, bias=False)
        # The pixel codec knows the distortion features only: the others join without disturbing it.
        zero(self.fuse_others)

    def forward(self, x: Tensor) -> Tensor:
        latent, _ = self.vae(x)
        return self.fuse(self.distortion(x), latent, self.semantic(x))

    def fuse(self, distortion: Tensor, latent: Tensor, semantic: Tensor) -> Tensor:
        """Features at 1/16, the VAE's latent at 1/8 and tokens at 1/16 -> fused features."""
        others: Tensor = self.fuse_others(torch.cat([F.pixel_unshuffle(latent, 2), semantic], dim=1))
        fused: Tensor = self.fuse_distortion(distortion)
        return fused + others


class SDDenoiser(nn.Module):
    """One step of the UNet: z_t [N,Z,8h,8w], t [N] in (0,1], c_pix [N,P,8h,8w], c_sem [N,D,h,w] -> z0 [N,Z,8h,8w].

    t = 1 is the last training timestep, where the codec takes its one step from ẑ. The pixel-level condition
    comes in beside the latent at a new conv_in and, by a 1x1 convolution, onto the output; both start at zero.
    """

    alphas: Tensor

    def __init__(self, config: SDConfig, unet: Any, schedule: Schedule) -> None:
        super().__init__()
        self.prediction = schedule.prediction
        self.register_buffer("alphas", schedule.alphas, persistent=False)
        unet.conv_in = _wider(unet.conv_in, config.pixel_condition)
        lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_rank, target_modules=LORA_TARGETS)
        self.unet = inject_adapter_in_model(lora, unet, adapter_name=ADAPTER)
        self.residual = conv(config.pixel_condition, config.vae_latent)
        zero(self.residual)

    def forward(self, z_t: Tensor, t: Tensor, c_pix: Tensor, c_sem: Tensor, pooled: Tensor | None = None) -> Tensor:
        """`pooled` [N,D]: the mean of c_sem over the picture, where this is one tile of it."""
        step = (t.float() * len(self.alphas)).ceil().long().clamp(1, len(self.alphas)) - 1
        sample = _like(torch.cat([z_t, c_pix.to(z_t.dtype)], dim=1), self.unet)
        words = _like(tokens(c_sem, pooled), self.unet)
        out = self.unet(sample, step, encoder_hidden_states=words, return_dict=False)[0]
        z0: Tensor = self._clean(z_t, out.to(z_t.dtype), step) + self.residual(c_pix)
        return z0

    def _clean(self, z_t: Tensor, out: Tensor, step: Tensor) -> Tensor:
        """The clean latent by the scheduler's own prediction type."""
        if self.prediction == "sample":
            return out
        alpha = self.alphas[step][:, None, None, None].to(z_t.dtype)
        signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
        if self.prediction == "v_prediction":
            return signal * z_t - noise * out
        return (z_t - noise * out) / signal


def _like(x: Tensor, module: nn.Module) -> Tensor:
    """In the precision that a pretrained part is kept in: a runtime may have halved it."""
    return x.to(next(module.parameters()).dtype)


def _wider(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    """conv_in that takes further channels: the pretrained kernel for the latent, zeros for them."""
    new = nn.Conv2d(old.in_channels + channels, old.out_channels, old.kernel_size, old.stride, old.padding)  # type: ignore[arg-type]
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        assert new.bias is not None and old.bias is not None
        new.bias.copy_(old.bias)
    return new.to(old.weight.dtype)


class SDSPRDiff(nn.Module):
    """The whole codec. Images are [N,3,H,W] in 0-1 with sides that are multiples of 64; levels [N] in 0-255."""

    def __init__(self, config: SDConfig, base: Base, semantic: Semantic) -> None:
        super().__init__()
        self.config = config
        self.sources = {"base": base.source, "semantic": semantic.source}
        self.triple_encoder = SDTripleEncoder(config, base.vae, semantic)
        self.latent_codec = LatentCodec(config)
        self.synthesis = SDSynthesis(config)
        self.reconstruction = SDReconstruction(config)
        self.denoiser = SDDenoiser(config, base.unet, base.schedule)
        self.vae_decoder = SDVAEDecoder(base.vae)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(is_trained(name))

    def clean_latent(self, x: Tensor) -> Tensor:
        """The frozen VAE's latent of the original: the denoiser's target."""
        mean: Tensor = self.triple_encoder.vae(x)[0]
        return mean

    def decode_latent(self, z0: Tensor, base: Tensor | None = None) -> Tensor:
        """Latent -> image."""
        out: Tensor = self.vae_decoder(z0)
        return out

    def receive(self, y_hat: Tensor, level: Tensor) -> SDReceived:
        """From unscaled ŷ to the coarse image, the latent estimate and both conditions."""
        f64, f16, z_est = self.synthesis(y_hat, level)
        coarse, c_pix, c_sem = self.reconstruction(f64, f16)
        return SDReceived(coarse, z_est, c_pix, c_sem)

    def denoise_once(self, r: SDReceived) -> Tensor:
        """The one step the codec takes: the last timestep, from ẑ."""
        out: Tensor = self.denoiser(r.z_est, torch.ones_like(r.z_est[:, 0, 0, 0]), r.c_pix, r.c_sem)
        return out

    def forward(self, x: Tensor, level: Tensor, *, hard: bool = False) -> SDDecoded:
        """``hard``: the bits that a file costs, see LatentCodec."""
        quantised = self.latent_codec(*self.latent_codec.analyse(self.triple_encoder(x)), level, hard=hard)
        return SDDecoded(quantised, self.receive(quantised.y_hat, level))

    def trained_state(self) -> dict[str, Tensor]:
        """The weights that are this project's, by name: all but those of the pretrained parts."""
        return {name: value for name, value in self.state_dict().items() if is_trained(name)}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`trained_state`, strict.

        Raises:
            WeightsError: a weight is missing, unknown or of another shape.
        """
        own = self.trained_state()
        if missing := sorted(set(own) - set(state)):
            raise WeightsError(f"{len(missing)} weights are missing, {missing[0]} for one")
        if unknown := sorted(set(state) - set(own)):
            raise WeightsError(f"{len(unknown)} weights are unknown, {unknown[0]} for one")
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise WeightsError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}")
            value.copy_(state[name])

    def gradient_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in UNet and VAE: activations are computed again on the way back.

        DINOv2 keeps its activations: transformers asks for training mode too, in which a frozen part never is.
        """
        again = functools.partial(checkpoint, use_reentrant=False)
        for module in self.modules():
            if module is not self and hasattr(module, "gradient_checkpointing"):
                vars(module).update(_gradient_checkpointing_func=again, gradient_checkpointing=enable)


def is_trained(name: str) -> bool:
    """Whether a weight of that name is trained here, and not part of a pretrained model."""
    return not name.startswith(PRETRAINED) or name.startswith("denoiser.unet.conv_in.") or ".lora_" in name


def build(base: Base, semantic: Semantic, config: SDConfig = SD) -> SDSPRDiff:
    """SPRDiff on loaded parts, whose networks become its own; widths in `config` that are theirs are replaced."""
    config = dataclasses.replace(
        config,
        vae_latent=base.vae.config.latent_channels,
        semantic=semantic.backbone.config.hidden_size,
        cross_attention=base.unet.config.cross_attention_dim,
    )
    return SDSPRDiff(config, base, semantic)


def load_base(name: str, revision: str | None = None, pinned: Source | None = None) -> Base:
    """VAE, UNet and schedule of a Stable-Diffusion-1.x/2.x-class model, float32.

    Args:
        name: folder as `save_pretrained` of a pipeline writes it, or id on the hub.
        revision: of the hub; None: its main branch.
        pinned: what the files must be, by their hashes.

    Raises:
        WeightsError: not found, incomplete, not safetensors, of another kind, or other files than pinned.
    """
    parts = [("vae", DIFFUSERS_WEIGHTS), ("unet", DIFFUSERS_WEIGHTS)]
    source = locate(name, revision, parts, ["scheduler/scheduler_config.json"], pinned)
    vae_config = check_class(source, "vae", "_class_name", ("AutoencoderKL",))
    unet_config = check_class(source, "unet", "_class_name", ("UNet2DConditionModel",))
    check_widths(source, vae_config, unet_config)
    schedule = read_schedule(source)
    vae = _load(AutoencoderKL, source, "vae")
    unet = _load(UNet2DConditionModel, source, "unet")
    return Base(vae, unet, schedule, source)


def load_semantic(name: str, revision: str | None = None, pinned: Source | None = None) -> Semantic:
    """A DINOv2 backbone, with or without registers, float32; arguments and errors as of `load_base`."""
    source = locate(name, revision, [("", TRANSFORMERS_WEIGHTS)], pinned=pinned)
    config = check_class(source, "", "model_type", ("dinov2", "dinov2_with_registers"))
    if config.get("patch_size") != PATCH:
        raise WeightsError(f"{name} has patches of {config.get('patch_size')} pixels where {PATCH} are due: "
                           "only then do they fall on the grid of the other encoders")  # fmt: skip
    kind = Dinov2WithRegistersModel if config["model_type"] == "dinov2_with_registers" else Dinov2Model
    return Semantic(_load(kind, source, ""), source)


def _load(kind: Any, source: Source, sub: str) -> Any:
    """The network, loaded strictly: both libraries only warn of weights that are missing."""
    folder = source.folder / sub
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        with _quiet():
            model, told = kind.from_pretrained(folder, torch_dtype=torch.float32, **options)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise WeightsError(f"{source.name}: {sub or 'the model'} cannot be loaded: {brief(error)}") from error
    if wrong := sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]])):
        raise WeightsError(f"{source.name}: {sub or 'the model'} lacks {len(wrong)} weights, {wrong[0]} for one")
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no report meanwhile: a library does not write to the terminal, and `_load` looks itself."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
