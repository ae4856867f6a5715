"""The options of training that only preset `sd` has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ...common.fields import option
from ...errors import TrainingError
from ...sd.config import SD, SDConfig

PANEL = "Preset sd"
"""The heading of these options in the help."""


@dataclass(frozen=True)
class SDOptions:
    """The options of training that only preset `sd` has.

    The folder of a base or semantic model may also be its id on the hub. `lora_rank`, `lora_alpha` and
    `prediction` change the configuration.

    Raises:
        TrainingError: the configuration cannot have a value.
    """

    base: str | None = option("Stable Diffusion 1.x or 2.x: a folder or an id of the hub.", None, panel=PANEL)
    semantic: str | None = option("DINOv2: a folder or an id of the hub.", None, panel=PANEL)
    base_revision: str | None = option("A commit of the hub.", None, panel=PANEL)
    semantic_revision: str | None = option("A commit of the hub.", None, panel=PANEL)
    variant: str | None = option("The variant of the base's weights, such as fp16.", None, panel=PANEL)
    config: SDConfig = field(default_factory=lambda: SD)
    distortion: Path | None = option(
        "The weights of ELIC's encoder, ours or CompressAI's, which stay as they are.", None, panel=PANEL
    )
    metric_weights: Path | None = option(
        "The folder with the weights of LPIPS.", None, metavar="DIR", panel=PANEL
    )
    lpips: bool = option("Whether LPIPS is part of the loss.", True, flag="--lpips/--no-lpips", panel=PANEL)
    grad_checkpointing: bool = option(
        "Compute activations twice: a third slower, far less memory.", False, panel=PANEL
    )
    adam8bit: bool = option("Keep the optimiser's state in 8 bits (bitsandbytes).", False, panel=PANEL)
    shard: bool = option(
        "Spread the model over the processes of torchrun (FSDP).", False, flag="--fsdp", panel=PANEL
    )
    workers: int | None = option("Threads that decode photographs.", None, low=1, panel=PANEL)
    lora_rank: int | None = option("The rank of the UNet's adapters (32).", None, low=1, panel=PANEL)
    lora_alpha: int | None = option(
        "The adapters' scale times their rank (8: a scale of 1/4).", None, low=1, panel=PANEL
    )
    prediction: str | None = option("What the UNet's output stands for: clean or base.", None, panel=PANEL)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("lora_rank", "lora_alpha", "prediction")}
        changes = {name: value for name, value in given.items() if value is not None}
        try:
            object.__setattr__(self, "config", replace(self.config, **changes))
        except ValueError as error:
            raise TrainingError(str(error)) from error
