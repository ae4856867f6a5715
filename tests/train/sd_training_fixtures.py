"""Fixtures of the tests of training preset `sd`, on tiny random parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sd_helpers import small_model
from sd_training_helpers import sd_options
from sprdiff.train import checkpoints
from sprdiff.train.data.pack import Packing, pack
from sprdiff.train.sd.recipes import SD_PARTS
from training_helpers import write_photos


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder that holds the tiny pretrained parts."""
    folder = tmp_path_factory.mktemp("parts")
    sd_options(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    pack(write_photos(folder / "photos", count=4, size=96), folder / "packed", Packing(min_side=64))
    return folder / "packed"


@pytest.fixture(scope="module")
def sd_start(tmp_path_factory: pytest.TempPathFactory, parts: Path) -> Path:
    """Write a checkpoint of random weights for everything that is trained."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    model = small_model(parts)
    ema = {f"ema.{k}": v for k, v in checkpoints.own_state(model).items()}
    sources = checkpoints.sources_of(model)
    checkpoints.save(path, checkpoints.Checkpoint("codec", 0, model.config, SD_PARTS, ema, sources))
    return path
