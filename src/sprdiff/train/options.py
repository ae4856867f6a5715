"""The options of training; the command line is made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..common.fields import option, options
from ..errors import TrainingError
from ..sd.config import SDConfig
from .sd.options import SDOptions

SD_PRESET = SDConfig.preset


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` texts; a value is JSON, or else a text.

    Raises:
        TrainingError: a text has no ``=``.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise TrainingError(f"--set takes NAME=VALUE, not {text!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How one stage is trained.

    What is None comes from the stage's recipe. An initial checkpoint may also be a folder of weights. If one
    belongs to the same stage, training continues at its step and, without `steps`, ends where that stage was
    to end.

    Raises:
        TrainingError: another preset is given options of preset `sd`.
    """

    stage: str = option("Stage of training, or export.", argument=True)
    out: Path = option("Folder of checkpoints and logs.", metavar="RUN")
    data: Sequence[str | Path] = option("Folder or .tar shard; may repeat; preset sd: shards anywhere.", ())
    preset: str = option("Size of the model: tiny or sd.", "tiny")
    resume: bool = option("Continue the checkpoint of the stage in RUN.", False)
    init: Sequence[Path] = option("Weights to start from; may repeat.", ())
    valid: Sequence[Path] = option("Folder or .tar of photographs for validation; may repeat.", ())
    exclude: Sequence[str] = option("Leave out photographs whose names have this prefix; may repeat.", ())
    steps: int | None = option("Steps of the optimiser.", None, low=1)
    batch: int | None = option("Crops per step.", None, low=1)
    crop: int | None = option("Side of a crop in pixels.", None, low=64)
    lr: float | None = option("Learning rate.", None, positive=True)
    seed: int = option("Seed of everything that is random.", 0, low=0)
    threads: int | None = option("CPU threads.", None, low=1)
    device: str = option("auto, cpu or cuda.", "auto")
    cache: Path | None = option("Folder for decoded or fetched photographs.", None)
    precision: str = option("auto (the fastest that is accurate enough), fp32, tf32, fp16 or bf16.", "auto")
    accumulate: int = option("Compute a batch in this many parts, which takes less memory.", 1, low=1)
    minutes: float | None = option("How long this leg lasts.", None, positive=True)
    decay: bool = option("With --minutes: this leg ends the stage.", False)
    compile: bool = option("Compile the stage first, which pays on a GPU.", False)
    validate_every: int = option("Steps between validations.", 1000, low=1)
    validate_crop: int | None = option("Side of the part of a photograph that validation sees.", None, low=64)
    save_every: float = option("Seconds between checkpoints.", 180.0, low=0)
    features: Path | None = option(
        "Weights of SqueezeNet 1.1, which measures the samples of validation.", None
    )
    settings: Mapping[str, Any] = option(
        "Another value of a setting of the stage; may repeat.",
        factory=dict,
        flag="--set",
        metavar="NAME=VALUE",
        read=read_settings,
    )
    sd: SDOptions = options(SDOptions())

    def __post_init__(self) -> None:
        # The workers also serve other presets.
        if self.preset != SD_PRESET and replace(self.sd, workers=None) != SDOptions():
            raise TrainingError("--base, --semantic and the other options of preset sd need --preset sd")


@dataclass(frozen=True, kw_only=True)
class LatentsOptions:
    """How a folder of latents is made.

    The checkpoints are those of the codec and, once there is one, of the VAE.
    """

    out: Path = option(
        "Folder of the latents; an interrupted run is continued there.", argument=True, metavar="OUT"
    )
    init: Sequence[Path] = option("Checkpoint of the codec, of the VAE; may repeat.")
    data: Sequence[str | Path] = option("Folder or .tar shard of photographs; may repeat.", ())
    preset: str = option("Size of the model.", "tiny")
    count: int = option("Crops, of 448 pixels each.", 3000, low=1)
    seed: int = option("Seed of everything that is random.", 0, low=0)
    vae_only: bool = option("Compute only the VAE's latent again.", False)
    exclude: Sequence[str] = option("Leave out photographs whose names have this prefix; may repeat.", ())
    cache: Path | None = option("Folder for decoded photographs.", None)
    precision: str = option("auto (the faster one), fp32 or bf16.", "auto")
    device: str = option("auto, cpu or cuda.", "auto")
    threads: int | None = option("CPU threads.", None, low=1)
