"""Fixtures of the tests of training preset `sd`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sd_helpers import small_model
from sd_training_helpers import sd_options
from sprdiff.train import checkpoints
from sprdiff.train.data.pack import Packing, pack
from sprdiff.train.sd.recipes import SD_PARTS
from training_helpers import write_photos


@pytest.fixture(scope="session")
def sd_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the tiny pretrained parts."""
    folder = tmp_path_factory.mktemp("parts")
    sd_options(folder)
    return folder


@pytest.fixture(scope="session")
def sd_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    pack(write_photos(folder / "photos", count=4, size=96), folder / "packed", Packing(min_side=64))
    return folder / "packed"


@pytest.fixture(scope="session")
def sd_start(tmp_path_factory: pytest.TempPathFactory, sd_parts: Path) -> Path:
    """A checkpoint of everything that is trained, random."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    model = small_model(sd_parts)
    ema = {f"ema.{k}": v for k, v in checkpoints.own_state(model).items()}
    sources = checkpoints.sources_of(model)
    checkpoints.save(path, checkpoints.Checkpoint("codec", 0, model.config, SD_PARTS, ema, sources))
    return path
