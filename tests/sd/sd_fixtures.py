"""Fixtures of preset `sd`: folders that a test may spoil, and a hub that cannot be reached."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sd_helpers import write_trained_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_trained_folder(folder)
    return folder


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> Path:
    """Copy ``base``, ``semantic`` and ``trained`` to where a test may spoil them."""
    for name in ("base", "semantic", "trained"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the hub's library an empty cache, and keep it from even trying to connect."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
