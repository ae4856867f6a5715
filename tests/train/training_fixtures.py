"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_helpers import nano_model, write_checkpoint, write_latents, write_photos


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with ``photos``, ``latents`` and ``start.safetensors``, which holds every network with
    random weights."""
    folder = tmp_path_factory.mktemp("training")
    write_photos(folder / "photos", count=3, size=96)
    write_latents(folder / "latents")
    write_checkpoint(folder / "start.safetensors", nano_model())
    return folder


@pytest.fixture(scope="session")
def latents(training_data: Path) -> Path:
    return training_data / "latents"


@pytest.fixture(scope="session")
def start(training_data: Path) -> Path:
    return training_data / "start.safetensors"
