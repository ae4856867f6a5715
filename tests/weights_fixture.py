"""Random weights of the `nano` preset, exported once per session: a whole codec in a temporary folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sprdiff.models.config import NANO
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.train.export import entropy_arrays, write_folder


def write_nano(folder: Path, seed: int = 0) -> Path:
    """A weights folder of random networks, none of whose paths is switched off."""
    torch.manual_seed(seed)
    # The wire knows the shipped presets only: to the file this is a `tiny` with other weights.
    model = SPRDiff(replace(NANO, preset_id=1)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("log_gain", "z_mean", "z_index")):
                parameter += 0.05 * torch.randn_like(parameter)
    write_folder(folder, model, entropy_arrays(model.latent_codec), {"data": "none: random weights"})
    return folder


@pytest.fixture(scope="session")
def nano_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nano(tmp_path_factory.mktemp("weights") / "nano")


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth waves with some texture, uint8 [H, W, 3]: compressible, but not flat."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [
        np.sin(x * fx + y * fy + phase)
        for fx, fy, phase in zip(
            rng.uniform(-0.2, 0.2, 9), rng.uniform(-0.2, 0.2, 9), rng.uniform(0, 6, 9), strict=True
        )
    ]
    image = np.stack([127 + 35 * sum(waves[c::3]) for c in range(3)], -1)
    image += rng.normal(0, 8, image.shape)
    return np.asarray(image.clip(0, 255), np.uint8)
