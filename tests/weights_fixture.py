"""Random weights of the `nano` preset, exported once per session: a whole codec in a temporary folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import photo
from sprdiff.codec import Codec
from sprdiff.models.config import NANO
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.stored import entropy_arrays
from sprdiff.train.export.folder import write_folder


def write_nano(folder: Path, seed: int = 0) -> Path:
    """Write a weights folder of random networks in which no path is switched off."""
    torch.manual_seed(seed)
    # The wire knows the shipped presets only: to the file this is a `tiny` with other weights.
    model = SPRDiff(replace(NANO, preset_id=1)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("log_gain", "z_mean", "z_index")):
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    write_folder(folder, model, entropy_arrays(model.latent_codec), {"data": "none: random weights"})
    return folder


@pytest.fixture(scope="session")
def nano_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nano(tmp_path_factory.mktemp("weights") / "nano")


@pytest.fixture(scope="module")
def codec(nano_weights: Path) -> Codec:
    return Codec(nano_weights, threads=1)


@pytest.fixture(scope="module")
def data(codec: Codec) -> bytes:
    """Return a file of the picture that the tests of the codec share."""
    return codec.encode(photo(256, 384), quality=50)
