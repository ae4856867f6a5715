"""The state of a trainer: it becomes a checkpoint, and a checkpoint becomes it again.

Of a sharded model every process takes part, in the same order: the processes hand each other their pieces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, tensor

from ..errors import TrainingError
from . import checkpoints
from .checkpoints import DERIVED, Checkpoint
from .ema import ModelEMA
from .recipes import Stage
from .sd.sharding import assign, restored, whole
from .stages.base import StageModule

WEIGHTS = ("ema", "extra", "model", "average")
"""The prefixes of weights in a checkpoint; every other prefix is a state of the optimiser."""


class TrainerState(Protocol):
    """What a trainer has of its state; `loop.TrainerState` is one."""

    stage: Stage
    module: StageModule
    model: Any
    ema: ModelEMA
    optimizer: torch.optim.AdamW
    step: int
    first: int


def collect(trainer: TrainerState) -> Checkpoint:
    """Return everything from which training can be resumed."""
    tensors: dict[str, Tensor] = {}
    with trainer.ema:
        tensors.update(
            {f"ema.{k}": whole(v).clone() for k, v in checkpoints.own_state(trainer.model).items()}
        )
    tensors.update({f"extra.{k}": whole(v).clone() for k, v in trainer.module.extra_state().items()})
    for name, parameter in trainer.ema.parameters.items():
        tensors[f"model.{name}"] = whole(parameter.detach())
        tensors[f"average.{name}"] = whole(trainer.ema.averages[name])
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            state = whole(value) if isinstance(value, Tensor) else tensor(value)
            tensors[f"{key}.{name}"] = state if state.dim() else state.reshape(1)
    stage = trainer.stage
    return Checkpoint(
        stage.name,
        trainer.step,
        trainer.model.config,
        stage.networks,
        tensors,
        checkpoints.sources_of(trainer.model),
        stage.steps,
        trainer.first,
    )


def restore(trainer: TrainerState, c: Checkpoint, path: Path) -> None:
    """Put a trainer into the state of a checkpoint.

    Raises:
        TrainingError: the checkpoint belongs to another stage or configuration, or a weight does not fit.
    """
    if c.stage != trainer.stage.name or c.config != trainer.model.config:
        raise TrainingError(f"{path} is of stage {c.stage} or of another configuration")
    checkpoints.check_sources(trainer.model, c, path)
    own, stored = checkpoints.own_state(trainer.model), c.part("ema")
    if wrong := set(own) ^ set(stored):
        raise TrainingError(f"{path} lacks weights or has unknown ones, such as {sorted(wrong)[0]}")
    for name, value in stored.items():
        assign(own[name], value)
    load_extras(trainer.module, c)
    weights, averages = c.part("model"), c.part("average")
    states = {key: c.part(key) for key in sorted({k.split(".", 1)[0] for k in c.tensors} - set(WEIGHTS))}
    for name, parameter in trainer.ema.parameters.items():
        try:
            assign(parameter.data, weights[name])
            assign(trainer.ema.averages[name], averages[name])
            if state := {
                key: restored(key, part[name], parameter) for key, part in states.items() if name in part
            }:
                trainer.optimizer.state[parameter] = state
        except (KeyError, RuntimeError) as error:
            raise TrainingError(f"{path} cannot be resumed: {name} does not fit ({error})") from error
    trainer.step, trainer.first = c.step, c.first


def load_extras(module: StageModule, c: Checkpoint) -> None:
    """Copy what the stage has beside the model, such as a discriminator, from a checkpoint of the same stage.

    Raises:
        TrainingError: something is missing or does not fit.
    """
    stored = c.part("extra")
    for name, value in module.extra_state().items():
        if name.startswith(DERIVED) and name not in stored:
            continue
        if name not in stored or stored[name].shape != value.shape:
            raise TrainingError(f"the checkpoint has no fitting {name}")
        assign(value, stored[name].to(value.dtype))
