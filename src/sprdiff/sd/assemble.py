"""The model of a trained folder on its pretrained parts, and the device that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DeviceError, WeightsError
from ..models.config import EXACT
from .folder import Trained
from .model import SDSPRDiff, build


def assemble(
    trained: Trained, weights: Mapping[str, NDArray[Any]], places: Mapping[str, str | Path | None]
) -> SDSPRDiff:
    """Return the model of a trained folder on its pretrained parts; every weight and every file is checked.

    Args:
        weights: the trained weights, by name.
        places: where ``base`` and ``semantic`` lie; None: where they were in training.

    Raises:
        WeightsError: something is missing, unknown, or not what it was trained on.
    """
    from .loading import load_base, load_semantic

    base, semantic = trained.sources["base"], trained.sources["semantic"]
    model = build(
        load_base(str(places["base"] or base.name), base.revision, base),
        load_semantic(str(places["semantic"] or semantic.name), semantic.revision, semantic),
        trained.config,
    )
    if model.config != trained.config:
        raise WeightsError(f"{trained.folder}: its configuration has other widths than its base models")
    state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}
    # torch does not run the integer networks: their weights here stay as they were initialised.
    kept = {name: value for name, value in model.trained_state().items() if name.startswith(EXACT)}
    try:
        model.load_trained_state(kept | state)
    except WeightsError as error:
        raise WeightsError(f"{trained.folder}: {error}") from error
    return model


def set_threads(count: int | None) -> None:
    """Set the number of torch's threads on the CPU, for the whole process; None changes nothing."""
    if count is not None:
        torch.set_num_threads(count)


def pick_device(name: str) -> torch.device:
    """Return a device by its name; ``auto`` is a GPU if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise DeviceError(f"there is no device {name!r} here") from error
    return device
