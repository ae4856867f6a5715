"""Preset `sd` in small: random parts of the real classes, in folders that `save_pretrained` writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from sprdiff.format.entropy import Exact
from sprdiff.models.stored import entropy_arrays
from sprdiff.sd.config import SMALL as SMALL
from sprdiff.sd.config import SDConfig
from sprdiff.sd.loading import load_base, load_semantic
from sprdiff.sd.model import SDSPRDiff, build
from sprdiff.sd.pretrained import save
from sprdiff.sd.runtime import TorchRuntime

COMMIT = "0123456789abcdef0123456789abcdef01234567"

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "prediction_type": "epsilon",
}  # fmt: skip


def write_base(folder: Path, seed: int = 0, *, scheduler: dict[str, Any] | None = None, **unet: Any) -> Path:
    """Write a random model of the class of Stable Diffusion; `scheduler` and `unet` change its
    configuration."""
    torch.manual_seed(seed)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
    ).save_pretrained(folder / "vae")
    sizes: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 12,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "sample_size": 8,
        "use_linear_projection": True,
    }
    UNet2DConditionModel(**(sizes | unet)).save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER | (scheduler or {})))
    return folder


def write_semantic(folder: Path, seed: int = 0, *, registers: bool = False, patch: int = 14) -> Path:
    """Write a random DINOv2."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 5 * patch, "patch_size": patch,
    }  # fmt: skip
    if registers:
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=3)).save_pretrained(
            folder
        )
    else:
        Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def small_model(folder: Path, seed: int = 0, config: SDConfig = SMALL) -> SDSPRDiff:
    """Return a random model as training starts with it; its parts are written to ``folder`` if needed."""
    if not (folder / "base").exists():
        write_base(folder / "base")
        write_semantic(folder / "semantic")
    base, semantic = load_base(str(folder / "base")), load_semantic(str(folder / "semantic"))
    torch.manual_seed(seed)
    return build(base, semantic, config).eval()


def stir(model: SDSPRDiff, scale: float = 0.05) -> None:
    """Add noise to every trained weight, so that nothing stays at its initial zero; gains and priors stay as
    they are."""
    with torch.no_grad():
        for name, value in model.trained_state().items():
            if not name.endswith(("log_gain", "z_mean", "z_index")):
                value.add_(torch.randn_like(value), alpha=scale)


def write_trained_folder(folder: Path, seed: int = 0, parts: Path | None = None) -> Path:
    """Write ``folder/trained``: a random SPRDiff with no path switched off; its parts lie in ``parts`` or
    ``folder``."""
    model = small_model(parts or folder, seed)
    stir(model)
    save(folder / "trained", model, entropy_arrays(model.latent_codec), {"data": "none: random weights"})
    return folder / "trained"


def exactly(runtime: TorchRuntime, y_hat: NDArray[np.float32], level: int, seed: int = 0) -> Exact:
    """Return what is known exactly of a picture with about this unscaled ŷ; means and features are random."""
    rng = np.random.default_rng(seed)
    unit = runtime.entropy.dequantise(np.ones(y_hat.shape, np.int32), level)
    values = np.clip(np.rint(y_hat / unit), -(2.0**30), 2.0**30).astype(np.int32)
    means = rng.integers(-300, 300, y_hat.shape).astype(np.int32)
    features = runtime.model.config.hyper_features
    h = rng.integers(0, 2000, (features, *y_hat.shape[1:])).astype(np.int16)
    return Exact(values, means, h)


def show(runtime: TorchRuntime, y_hat: NDArray[np.float32], *, level: int, **dials: Any) -> NDArray[Any]:
    """Return the picture of such a ŷ."""
    return runtime.decode(exactly(runtime, y_hat, level), level=level, **dials)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cache(source: Path, name: str, folder: Path) -> None:
    """Make what huggingface_hub leaves of a model that was fetched once."""
    root = folder / "cache" / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
