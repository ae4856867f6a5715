"""What training starts from: the model of a preset, and initial checkpoints or weights folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import TrainingError
from ..models.config import PRESETS
from ..models.sprdiff import SPRDiff
from ..models.stored import load_folder
from ..runtime.weights import read_arrays
from ..sd.config import SDConfig
from ..sd.folder import is_trained
from . import checkpoints
from .checkpoints import PARTS, Checkpoint
from .options import SD_PRESET
from .recipes import Stage
from .sd.options import SDOptions
from .sd.setup import build_model, check_config, load_trained


def build(preset: str, sd: SDOptions | None = None) -> SPRDiff:
    """Build the model of a preset with its pretrained parts; that of `sd` has the same attributes and
    methods.

    Raises:
        TrainingError: there is no such preset.
        WeightsError: a pretrained part cannot be loaded.
    """
    if preset == SD_PRESET:
        return build_model(sd or SDOptions())  # type: ignore[return-value]
    if preset not in PRESETS:
        raise TrainingError(f"there is no preset {preset!r}; there are {', '.join((*PRESETS, SD_PRESET))}")
    model = SPRDiff(PRESETS[preset])
    if model.triple_encoder.semantic is not None:
        model.triple_encoder.semantic.load_package()
    return model


def read_initial(path: Path) -> Checkpoint:
    """Read a checkpoint, or a folder of weights as one, so that shipped weights can be trained further.

    Raises:
        TrainingError: it is missing or damaged.
        WeightsError: the folder is incomplete or damaged.
    """
    if not path.is_dir():
        return checkpoints.load(path)
    if is_trained(path):
        return load_trained(path)
    model = load_folder(path, read_arrays)
    tensors = {f"ema.{name}": value for name, value in model.state_dict().items()}
    return Checkpoint("export", 0, model.config, PARTS, tensors)


def load_initial(model: SPRDiff, recipe: Stage, initial: Sequence[Path], *, resume: bool) -> None:
    """Copy the weights of initial checkpoints into a model.

    Raises:
        TrainingError: a weight does not fit, or the stage needs a network that none of them has.
    """
    found: set[str] = set()
    for path in initial:
        checkpoint = read_initial(path)
        if isinstance(checkpoint.config, SDConfig):
            check_config(model.config, checkpoint, path)
        found.update(checkpoints.load_networks(model, checkpoint, path))
    if (missing := set(recipe.needs) - found) and not resume:
        raise TrainingError(
            f"stage {recipe.name} starts from trained {', '.join(sorted(missing))}: give --init"
        )
