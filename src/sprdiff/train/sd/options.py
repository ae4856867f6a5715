"""The options of training that only preset `sd` has."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...common.fields import option
from ...errors import TrainingError
from ...sd.config import SD, SDConfig

_shown = functools.partial(option, panel="Preset sd")


@dataclass(frozen=True)
class SDOptions:
    """The options of training that only preset `sd` has.

    The folder of a base or semantic model may also be its id on the hub. `lora_rank`, `lora_alpha` and
    `prediction` change the configuration.

    Raises:
        TrainingError: the configuration cannot have a value.
    """

    base: str | None = _shown("Stable Diffusion 1.x or 2.x: a folder or an id of the hub.", None)
    semantic: str | None = _shown("DINOv2: a folder or an id of the hub.", None)
    base_revision: str | None = _shown("A commit of the hub.", None)
    semantic_revision: str | None = _shown("A commit of the hub.", None)
    variant: str | None = _shown("The variant of the base's weights, such as fp16.", None)
    config: SDConfig = field(default_factory=lambda: SD)
    distortion: Path | None = _shown(
        "The weights of ELIC's encoder, ours or CompressAI's, which stay as they are.", None
    )
    metric_weights: Path | None = _shown("The folder with the weights of LPIPS.", None, metavar="DIR")
    lpips: bool = _shown("Whether LPIPS is part of the loss.", True, flag="--lpips/--no-lpips")
    grad_checkpointing: bool = _shown("Compute activations twice: a third slower, far less memory.", False)
    adam8bit: bool = _shown("Keep the optimiser's state in 8 bits (bitsandbytes).", False)
    shard: bool = _shown("Spread the model over the processes of torchrun (FSDP).", False, flag="--fsdp")
    workers: int | None = _shown("Threads that decode photographs.", None, low=1)
    lora_rank: int | None = _shown("The rank of the UNet's adapters (32).", None, low=1)
    lora_alpha: int | None = _shown("The adapters' scale times their rank (8: a scale of 1/4).", None, low=1)
    prediction: str | None = _shown("What the UNet's output stands for: clean or base.", None)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("lora_rank", "lora_alpha", "prediction")}
        changes = {name: value for name, value in given.items() if value is not None}
        try:
            object.__setattr__(self, "config", replace(self.config, **changes))
        except ValueError as error:
            raise TrainingError(str(error)) from error
