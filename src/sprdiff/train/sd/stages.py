"""The stages of preset `sd` and what they need beside the model.

    pixel ─► codec ─► refine ─► export

``pixel`` is that of `tiny`. VAE, DINOv2 and the UNet's own weights come pretrained and stay frozen, so there is no
``vae``, ``semantic`` or ``denoise``. This module loads no pretrained part until a model is built.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from ...errors import TrainingError
from ...evaluate.metrics.backbones import MissingWeightsError
from ...models.config import EXACT
from ...models.latent_codec import LatentCodec
from ...models.rate import lambda_of
from ...models.stored import load_entropy_arrays
from ...sd.config import SD, SDConfig
from ...sd.folder import read_trained, read_weights
from ...sd.modules import SDReceived
from ..checkpoints import Checkpoint
from ..losses import mse, shifted
from ..recipes import Stage
from ..stages import Scalars, StageModule
from .losses import LpipsLoss, SemanticCritic, critic_layers, feature_distance

if TYPE_CHECKING:
    from ...sd.model import SDSPRDiff

log = logging.getLogger(__name__)

WEIGHTS = MappingProxyType({"pixel": 8.0, "lpips": 1.0, "semantic": 0.1})
"""StableCodec's 2·L2 on images in ±1 (8 on 0-1) + LPIPS + 0.1 · a semantic distance; DINOv2's in place of CLIP's."""


@dataclass(frozen=True)
class SDOptions:
    """What preset `sd` is told beside the options of every preset.

    Attributes:
        base, semantic: folders, or ids on the hub, at their revisions.
        distortion: safetensors file of a trained ELIC analysis transform; stage ``pixel`` then leaves it as it is.
        metric_weights: folder of VGG16 and the heads of LPIPS. lpips: whether to train on LPIPS at all.
        grad_checkpointing: compute activations again on the way back: a third more time, far less memory.
        adam8bit: optimiser states of 8 bits. shard: FSDP instead of DDP.
        workers: threads that decode photographs.
    """

    base: str | None = None
    semantic: str | None = None
    base_revision: str | None = None
    semantic_revision: str | None = None
    config: SDConfig = SD
    distortion: Path | None = None
    metric_weights: Path | None = None
    lpips: bool = True
    grad_checkpointing: bool = False
    adam8bit: bool = False
    shard: bool = False
    workers: int = 4


def build_model(options: SDOptions) -> SDSPRDiff:
    """A model as training starts with it.

    Raises:
        TrainingError: no base or semantic model is named. WeightsError: one cannot be had or is of the wrong kind.
    """
    if options.base is None or options.semantic is None:
        raise TrainingError("preset sd needs --base (stabilityai/sd-turbo, say) and --semantic (facebook/dinov2-base)")
    try:
        from ...sd.model import build, load_base, load_semantic
    except ImportError as error:
        if (error.name or "").startswith("sprdiff"):
            raise
        raise TrainingError(f"preset sd needs {error.name}: pip install 'sprdiff[train,sd]'") from error
    base = load_base(options.base, options.base_revision)
    model = build(base, load_semantic(options.semantic, options.semantic_revision), options.config)
    if options.distortion is not None:
        load_distortion(model, options.distortion)
    if options.grad_checkpointing:
        model.gradient_checkpointing()
    return model


def load_distortion(model: SDSPRDiff, path: Path) -> None:
    """Load the distortion-oriented encoder, strictly.

    Raises:
        TrainingError: the file is missing, damaged or does not fit.
    """
    try:
        model.triple_encoder.distortion.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise TrainingError(f"{path}: not the weights of this analysis transform ({text})") from error


def load_trained(folder: Path) -> Checkpoint:
    """The folder of a trained SPRDiff as a checkpoint: what a published model is trained on from.

    Raises:
        WeightsError: it is incomplete, damaged or of another version.
    """
    trained = read_trained(folder)
    arrays, weights = read_weights(trained)
    codec = LatentCodec(trained.config)
    load_entropy_arrays(codec, arrays)
    exact = {f"latent_codec.{k}": v for k, v in codec.state_dict().items()}
    tensors = {f"ema.{k}": v for k, v in exact.items() if k.startswith(EXACT)}
    tensors |= {f"ema.{k}": torch.from_numpy(v.astype(np.float32)) for k, v in weights.items()}
    sources = {part: dict(source.files) for part, source in trained.sources.items()}
    return Checkpoint("export", 0, trained.config, SD_PARTS, tensors, sources)


def load_lpips(options: SDOptions) -> LpipsLoss | None:
    """LPIPS; None, with a warning, where it is given up on purpose.

    Raises:
        MissingWeightsError: the weights are nowhere, and nobody said to go on without.
    """
    if not options.lpips:
        log.warning("training without LPIPS: expect blur and poor texture")
        return None
    try:
        return LpipsLoss.load(options.metric_weights)
    except MissingWeightsError as error:
        raise MissingWeightsError(f"{error}; --no-lpips trains without") from error


class SDStage(StageModule):
    """What ``codec`` and ``refine`` share: the one step, and the distances of the picture that comes of it."""

    def __init__(self, model: SDSPRDiff, trains: tuple[str, ...], lpips: LpipsLoss | None = None) -> None:
        super().__init__(model, trains)
        self.lpips = lpips

    def _decode(self, r: SDReceived) -> tuple[Tensor, Tensor]:
        """The clean latent and the picture, both float32."""
        z0 = self.model.denoise_once(r)
        return z0.float(), self.model.decode_latent(z0, r.coarse).float()

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        decoded = self.model(x, level, hard=True)
        _, image = self._decode(decoded.reconstruction)
        bits = decoded.quantised.y_bits + decoded.quantised.z_bits
        return image, bits / (x.shape[2] * x.shape[3])


class SDPixelStage(StageModule):
    """MSE codec on the distortion-oriented encoder alone: bpp + λ(level)·MSE, each sample at a level of its own."""

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        coarse, bpp, z_bpp = self._code(x, level)
        weight, squared = lambda_of(level, self.model.config.lambda_range), mse(coarse, x)
        # Divided by sqrt(λ) so that high qualities do not own the gradient.
        loss = ((bpp + weight * squared) * weight.rsqrt()).mean() * 3
        return {"loss": loss, "mse": squared.mean(), "bpp": bpp.mean(), "z_bpp": z_bpp.mean()}

    def _code(self, x: Tensor, level: Tensor, *, hard: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        model, pixels = self.model, x.shape[2] * x.shape[3]
        encoder = model.triple_encoder
        latents = model.latent_codec.analyse(encoder.fuse_distortion(encoder.distortion(x)))
        q = model.latent_codec(*latents, level, hard=hard)
        _, f16, _ = model.synthesis(q.y_hat, level)
        return model.reconstruction.coarse(f16).float(), (q.y_bits + q.z_bits) / pixels, q.z_bits / pixels

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        coarse, bpp, _ = self._code(x, level, hard=True)
        return coarse, bpp


class SDCodecStage(SDStage):
    """All that is trained but the distortion-oriented encoder, together: rate and distortion of x̃ and of x̂.

        loss = 3/√λ · (ρ·bpp + λ·(MSE(x̃)/2 + (8·MSE(x̂) + LPIPS(x̂) + 0.1·semantic(x̂))/8)) + latent terms

    λ follows the level of each sample. ρ ramps from a quarter to one over the first half of the steps: a codec that
    is first given more bits than it will have learns what to do with them (StableCodec's relaxed rate).
    """

    LATENT_WEIGHT = 0.05
    RELAXED, RAMP = 0.25, 0.5

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        model, pixels = self.model, x.shape[2] * x.shape[3]
        with torch.no_grad():
            target = model.clean_latent(x).float()
            semantic = model.triple_encoder.semantic(x)
            distortion = model.triple_encoder.distortion(x)
        fused = model.triple_encoder.fuse(distortion, target, semantic)
        q = model.latent_codec(*model.latent_codec.analyse(fused), level)
        r = model.receive(q.y_hat, level)
        z0, image = self._decode(r)
        bpp, weight = (q.y_bits + q.z_bits) / pixels, lambda_of(level, model.config.lambda_range)
        terms = self._distances(image, x, semantic)
        squared = mse(r.coarse.float(), x)
        error = 0.5 * squared + sum(WEIGHTS[k] * v for k, v in terms.items()) / WEIGHTS["pixel"]
        latent = mse(r.z_est.float(), target).mean() + mse(z0, target).mean()
        # Divided by sqrt(λ) so that high qualities do not own the gradient.
        loss = ((self.rate_weight() * bpp + weight * error) * weight.rsqrt()).mean() * 3
        means = {k: v.mean() for k, v in terms.items()}
        return {"loss": loss + self.LATENT_WEIGHT * latent, "mse": squared.mean(), "bpp": bpp.mean(),
                "z_bpp": (q.z_bits / pixels).mean(), "latent": latent, **means}  # fmt: skip

    def rate_weight(self) -> float:
        """ρ at the step under way."""
        return min(1.0, self.RELAXED + (1 - self.RELAXED) * self.progress / self.RAMP)

    def _distances(self, image: Tensor, x: Tensor, semantic: Tensor) -> Scalars:
        features = self.model.triple_encoder.semantic(image)
        terms = {"pixel": mse(image, x), "semantic": feature_distance(features, semantic)}
        return terms if self.lpips is None else {**terms, "lpips": self.lpips(image, x)}


class SDRefineStage(SDStage):
    """Adversarial training of the receiver behind x̃; entropy path and coarse image frozen, so files stay what they are.

    The critic's heads sit on four layers of the frozen DINOv2 and learn by the hinge loss (Lim & Ye 2017) from the
    first step; the receiver hears them later and softly. High qualities weigh fidelity more than low ones.
    """

    extras = ("critic.",)
    ADVERSARIAL, LATENT_WEIGHT = 0.1, 0.02
    FROM, RAMP = 0.02, 0.1
    """Shares of the steps after which the critic is heard, and over which it gets loud."""

    def __init__(self, model: SDSPRDiff, trains: tuple[str, ...], lpips: LpipsLoss | None = None) -> None:
        super().__init__(model, trains, lpips)
        backbone: Any = model.triple_encoder.semantic.backbone
        self.layers = critic_layers(backbone.config.num_hidden_layers)
        self.critic = SemanticCritic(backbone.config.hidden_size, len(self.layers))

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        with torch.no_grad():
            target = self.model.clean_latent(x).float()
            f64, f16, coarse = self._frozen(x, level)
        c_pix, c_sem = self.model.reconstruction.conditions(coarse, f64, f16)
        r = SDReceived(coarse, self.model.synthesis.estimate(f16), c_pix, c_sem)
        z0, image = self._decode(r)
        latent = mse(r.z_est.float(), target).mean() + mse(z0, target).mean()
        # (λ/λ_mid)^¼: from 0.54 at the lowest quality to 1.6 at the highest.
        weight = (lambda_of(level, self.model.config.lambda_range) / 8.5) ** 0.25
        terms = {"pixel": weight * mse(image, x)}
        x, image = shifted(x, image)  # what judges must not always judge at the same phase of its strides
        if self.lpips is not None:
            terms["lpips"] = self.lpips(image, x)
        with torch.no_grad():
            real = self._features(x)
        fake = self._features(image)
        terms["semantic"] = feature_distance(fake[-1], real[-1])
        critic = F.relu(1 - self.critic(real)).mean() + F.relu(1 + self.critic([f.detach() for f in fake])).mean()
        fooled = self._fool(fake)
        means = {k: v.mean() for k, v in terms.items()}
        loss = critic + sum(WEIGHTS[k] * v for k, v in means.items()) + self.LATENT_WEIGHT * latent
        return {"loss": loss + self.heard() * self.ADVERSARIAL * fooled, "critic": critic.detach(),
                "mse": mse(image, x).mean(), "latent": latent, "adversarial": fooled, **means}  # fmt: skip

    def heard(self) -> float:
        """How loud the critic is at the step under way, 0 to 1."""
        return min(1.0, max(0.0, (self.progress - self.FROM) / self.RAMP))

    def _frozen(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codec = self.model.latent_codec
        q = codec(*codec.analyse(self.model.triple_encoder(x)), level)
        f64, f16, _ = self.model.synthesis(q.y_hat, level)
        return f64, f16, self.model.reconstruction.coarse(f16)

    def _features(self, x: Tensor) -> list[Tensor]:
        encoder: Any = self.model.triple_encoder.semantic
        found: list[Tensor] = encoder.levels(x, self.layers)
        return found

    def _fool(self, fake: list[Tensor]) -> Tensor:
        # The critic's own weights must not learn from the generator's term.
        parameters = list(self.critic.parameters())
        for p in parameters:
            p.requires_grad_(False)
        fooled = -self.critic(fake).mean()
        for p in parameters:
            p.requires_grad_(True)
        return fooled


_PIXEL = ("triple_encoder.distortion", "triple_encoder.fuse", "latent_codec", "synthesis", "reconstruction.coarse")
_DUAL = ("reconstruction.pixel", "reconstruction.semantic")
SD_PARTS = (*_PIXEL, "synthesis.estimate", *_DUAL, "denoiser")
"""The parts of `checkpoints.PARTS` that hold trained weights; all others are pretrained."""

SD_STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "pixel",
            SDPixelStage,
            ("triple_encoder.distortion", "triple_encoder.fuse_distortion", "latent_codec", "synthesis.enter",
             "synthesis.modulate", "synthesis.body", "synthesis.up", "reconstruction.coarse"),
            _PIXEL,
            steps=150_000,
            crop=512,
            lr=1e-4,
        ),
        Stage(
            "codec",
            SDCodecStage,
            ("triple_encoder.fuse", "latent_codec", "synthesis", "reconstruction", "denoiser"),
            SD_PARTS,
            needs=_PIXEL,
            steps=120_000,
            crop=512,
            lr=1e-4,
        ),
        Stage(
            "refine",
            SDRefineStage,
            ("synthesis.estimate", "reconstruction.pixel", "reconstruction.semantic", "denoiser"),
            ("synthesis.estimate", *_DUAL, "denoiser"),
            needs=SD_PARTS,
            steps=40_000,
            batch=4,
            crop=512,
            lr=5e-5,
        ),
    )
}  # fmt: skip
