"""The stages of training: what each trains, what it needs, and its loss as a module.

    codec ──► vae ──► flow ──► shortcut ──► polish ──► export
      ▲         │
      └─────────┘ the VAE's encoder joins the fusion once it is good

A stage module's ``forward(batch)`` returns a dictionary of scalars; ``loss`` is minimised, the rest is logged. Networks
run under the autocast of the loop; losses and the integer networks run in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.config import LEVELS
from ..models.latent_codec import Quantised, lambda_of
from ..models.reconstruction import Reconstruction
from ..models.sprdiff import SPRDiff
from ..models.triple_encoder import SEMANTIC_SCALE, blurred
from .checkpoints import own_state
from .losses import mse, structural_similarity

Scalars = dict[str, Tensor]


def draw_levels(count: int, device: torch.device | str = "cpu") -> Tensor:
    """[N] levels: half of them even over all, half leaning to the middle, where most files are made."""
    uniform = torch.rand(2, count, device=device)
    leaning = torch.rand(count, device=device) < 0.5
    level = torch.where(leaning, uniform.mean(0), uniform[0])
    return level.mul(LEVELS).floor().clamp(max=LEVELS - 1)


class StageModule(nn.Module):
    """Base of the stage modules: holds the model; gradients only where ``trains`` says."""

    progress = 0.0
    """Part of the stage that is done: what ramps reads it."""
    step = 0
    extras: tuple[str, ...] = ()
    """Prefixes of what the stage has beside the model that a later leg needs: heads, a discriminator."""

    def __init__(self, model: nn.Module, trains: tuple[str, ...]) -> None:
        super().__init__()
        self.model: Any = model  # `SPRDiff`, or that of preset `sd`
        own = own_state(model)  # inside a part, what is pretrained stays frozen
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(trains) and name in own)

    def begin(self, step: int, progress: float) -> None:
        """Called before each step with its number and the part of the stage that is done."""
        self.step, self.progress = step, progress

    def draw_levels(self, count: int, device: torch.device) -> Tensor:
        """Levels of a batch, [N] in 0-255."""
        return draw_levels(count, device)

    def set_precision(self, word: str, device: torch.device) -> str:
        """Prepare for a precision, before the first step; returns it, chosen where ``auto`` leaves it to the stage."""
        return word

    def forward(self, x: Any, level: Tensor) -> Scalars:
        raise TypeError(f"{type(self).__name__} is abstract")

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor] | None:
        """What validation looks at: (images [N,3,H,W], bits per pixel [N]); None where the result is no image.

        ``x`` is one image where there are several levels.
        """
        return None

    def samples(self, x: Tensor, level: Tensor) -> dict[str, Tensor] | None:
        """Pictures that validation judges one kind after another, [1,3,H,W] by what they are; None: there are none."""
        return None

    def extra_state(self) -> dict[str, Tensor]:
        """Parameters and buffers under ``extras``."""
        return {k: v for k, v in self.state_dict().items() if k.startswith(self.extras)} if self.extras else {}

    def finish(self, batches: list[Any]) -> None:
        """Called once after the last step with a few training batches."""


def code(
    model: SPRDiff, x: Tensor, level: Tensor, branches: Sequence[str], semantic: Tensor | None = None, *,
    hard: bool = True,
) -> tuple[Quantised, Reconstruction]:  # fmt: skip
    """Images through the latent codec and back to x̃; one image at several levels is analysed once.

    Args:
        branches: encoders beside the distortion-oriented one, ``vae`` and ``semantic``.
        semantic: EfficientNet-Lite0's features where they are known already.
    """
    encoder, latent = model.triple_encoder, None
    with torch.no_grad():
        if "vae" in branches:
            latent, _ = encoder.vae(x, blurred(x))
        if "semantic" in branches and semantic is None:
            assert encoder.semantic is not None
            semantic = encoder.semantic(x).float()
    fused = encoder.fuse(encoder.distortion(x), latent, semantic if "semantic" in branches else None)
    y, z = (t.expand(len(level), -1, -1, -1) for t in model.latent_codec.analyse(fused))
    q = model.latent_codec(y, z, level, hard=hard)
    return q, model.receive(q, level)


def active_branches(model: SPRDiff) -> tuple[str, ...]:
    """The branches whose weights in the fusion are not all zero."""
    layers = {"vae": model.triple_encoder.fuse_vae, "semantic": model.triple_encoder.fuse_semantic}
    return tuple(name for name, layer in layers.items() if layer is not None and bool(layer.weight.any()))


@torch.no_grad()
def receive(model: SPRDiff, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a receiver has of images: x̃ in whole bytes as 0-1, f16, f32, and the bits of each image."""
    q, r = code(model, x, level, active_branches(model))
    coarse = r.coarse.float().clamp(0, 1).mul(255).round().div(255)
    return coarse, r.f16.float(), r.f32.float(), q.y_bits + q.z_bits


class CodecStage(StageModule):
    """Everything from the image to x̃: rate + λ(level)·distortion, each sample at a level of its own.

    Distortion is squared error, and MS-SSIM where `structure` is above 0. The tokens c_sem learn to tell
    EfficientNet-Lite0's features of the original, with gradient into the encoder (semantic distillation, as OneDC).

    Args:
        structure: weight of 1 − MS-SSIM beside the squared error.
        semantic: weight of the distillation; 0: none.
        branches: which encoders join the fusion beside the distortion-oriented one: ``vae``, ``semantic``.
        noisy_steps: first steps, whose bits are those of noisy latents, the way to start.
    """

    SQUARED = 0.6
    """Weight of the squared error where MS-SSIM is counted too: about equal worth in bits (Kodak, 0.01 to 0.03 bpp)."""
    extras = ("tell.",)
    hard = False
    """Whether bits are those of rounded latents. A number of the step in `forward` would compile each step anew."""

    def __init__(
        self, model: SPRDiff, trains: tuple[str, ...], *, structure: float = 0.0, semantic: float = 0.0,
        branches: tuple[str, ...] = (), noisy_steps: int = 1500,
    ) -> None:  # fmt: skip
        super().__init__(model, trains)
        self.structure, self.semantic_weight = structure, semantic
        self.branches, self.noisy_steps = branches, noisy_steps
        width = model.config.semantic_condition
        self.tell = nn.Sequential(nn.SiLU(), nn.Conv2d(width, 4 * model.config.semantic, 1), nn.PixelShuffle(2))
        self.tell.requires_grad_(semantic > 0)
        # What the settings leave out gets no gradient, and several processes would wait for it.
        if not semantic:
            model.reconstruction.semantic.requires_grad_(False)
        encoder = model.triple_encoder
        for name, joined in (("vae", encoder.fuse_vae), ("semantic", encoder.fuse_semantic)):
            if name not in branches and joined is not None:
                joined.requires_grad_(False)

    def begin(self, step: int, progress: float) -> None:
        super().begin(step, progress)
        self.hard = step >= self.noisy_steps

    def forward(self, x: Tensor, level: Tensor) -> Scalars:
        wanted = self._semantic(x) if self.semantic_weight or "semantic" in self.branches else None
        q, r = self.code(x, level, wanted, hard=self.hard)
        pixels = x.shape[2] * x.shape[3]
        bpp, weight = (q.y_bits + q.z_bits) / pixels, lambda_of(level, self.model.config.lambda_range)
        coarse = r.coarse.float()
        squared = distortion = mse(coarse, x)
        if self.structure:
            distortion = self.SQUARED * squared + self.structure * (1 - structural_similarity(coarse, x))
        # Divided by sqrt(λ) so that high qualities do not own the gradient.
        loss = ((bpp + weight * distortion) * weight.rsqrt()).mean() * 3
        scalars = {"mse": squared.mean(), "bpp": bpp.mean(), "z_bpp": (q.z_bits / pixels).mean()}
        if self.semantic_weight and wanted is not None:
            told = self.tell(self.model.reconstruction.semantic(r.f32)).float()
            scalars["semantic"] = (told - SEMANTIC_SCALE * wanted).square().mean()
            loss = loss + self.semantic_weight * scalars["semantic"]
        return {"loss": loss, **scalars}

    @torch.no_grad()
    def _semantic(self, x: Tensor) -> Tensor:
        assert self.model.triple_encoder.semantic is not None
        out: Tensor = self.model.triple_encoder.semantic(x).float()
        return out

    def code(
        self, x: Tensor, level: Tensor, semantic: Tensor | None, *, hard: bool
    ) -> tuple[Quantised, Reconstruction]:
        """Through the latent codec and back to x̃."""
        return code(self.model, x, level, self.branches, semantic, hard=hard)

    def reconstruct(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        wanted = self._semantic(x) if "semantic" in self.branches else None
        q, r = self.code(x, level, wanted, hard=True)
        return r.coarse.float(), (q.y_bits + q.z_bits) / (x.shape[2] * x.shape[3])
