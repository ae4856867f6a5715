"""Folders of preset `sd` that a test may spoil, and a hub that cannot be reached."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sd_helpers import write_trained_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_trained_folder(folder)
    return folder


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> Path:
    """Copies of ``base``, ``semantic`` and ``trained`` that a test may spoil."""
    for name in ("base", "semantic", "trained"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's library sees an empty cache and does not even try to connect."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cache(source: Path, name: str, folder: Path) -> None:
    """What huggingface_hub leaves of a model that was fetched once."""
    root = folder / "cache" / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
