"""The torch model of a first generation's weights folder, for refinement on the sender."""

from __future__ import annotations

from pathlib import Path

from ..stored import Read, fill, read_npz
from .config import FirstConfig
from .sprdiff import SPRDiff


def load_first(folder: Path, read: Read = read_npz) -> SPRDiff:
    """Return the torch model of a folder of the first generation; see `models.stored.load_folder`."""
    return fill(folder, lambda text: SPRDiff(FirstConfig.from_json(text)), read)
