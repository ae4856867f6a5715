"""Fixtures of the tests of export: networks, their folder, and an export without its slow part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sprdiff.train.export.folder
import sprdiff.train.export.run
from export_helpers import CARD, CHANGED
from sprdiff.models.config import EXACT, NANO
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.stored import load_folder
from sprdiff.runtime.weights import GRAPHS
from sprdiff.train.export.run import run_export
from training_helpers import write_checkpoint, write_photos


@pytest.fixture(scope="module")
def model() -> SPRDiff:
    """Return the networks that ``nano_weights`` is written from, except for the arrays in CHANGED."""
    import weights_fixture  # not before pytest has loaded it as a plugin

    caught: list[SPRDiff] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights_fixture, "write_folder", lambda _, model, *rest: caught.append(model))
        weights_fixture.write_nano(Path("unused"))
    caught[0].latent_mean += torch.linspace(-0.5, 0.5, NANO.vae_latent)
    caught[0].latent_std *= 1.5
    for name in CHANGED[2:]:
        caught[0].state_dict()[name].zero_()  # equal weights, which an exporter likes to merge
    return caught[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, model: SPRDiff) -> Path:
    """Return the folder that ``run_export`` makes of a checkpoint, with tables fitted to photographs."""
    base = tmp_path_factory.mktemp("export")
    start = write_checkpoint(base / "start.safetensors", model)
    photos = write_photos(base / "photos", count=2, size=128)
    run_export([start], base / "weights", data=[photos], preset="nano", card=CARD, crops=32, crop=64)
    return base / "weights"


# ---------------------------------------------------------------------------- onnxruntime against torch


@pytest.fixture(scope="module")
def stored(exported: Path) -> SPRDiff:
    """Return the torch model of the folder, with the stored weights that the graphs get."""
    return load_folder(exported).eval()


# ---------------------------------------------------------------------------- whole or not at all


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Leave out the slow part, the graphs."""

    def graphs(model: SPRDiff, folder: Path) -> dict[str, list[str]]:
        (folder / "encoder.onnx").write_bytes(b"graph")
        weights = [name for name in model.state_dict() if not name.startswith(EXACT)]
        return {name: weights if name == "coarse" else [] for name in GRAPHS}

    monkeypatch.setattr(sprdiff.train.export.folder, "export_graphs", graphs)
    yield monkeypatch
