"""Which optimiser a stage is trained with."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from ..errors import TrainingError
from .muon import Muon
from .recipes import Group, Stage
from .soap import Soap


def make_optimizer(
    stage: Stage, named: list[tuple[str, nn.Parameter]], *, adam8bit: bool, shard: bool
) -> torch.optim.AdamW:
    """The optimiser that a stage's recipe names.

    Args:
        named: names and parameters, as of the stage module.
        adam8bit: states of 8 bits, of AdamW.
        shard: whether the parameters are spread over processes.

    Raises:
        TrainingError: bitsandbytes is not installed, or cannot be spread.
    """
    if stage.optimizer == "soap":
        return Soap(named, lr=stage.lr)
    if stage.optimizer == "muon":
        return Muon(named, lr=stage.lr)
    return _adamw(adam8bit=adam8bit, shard=shard)(_groups(stage, named), lr=stage.lr, weight_decay=1e-4)


def _groups(stage: Stage, named: list[tuple[str, nn.Parameter]]) -> list[dict[str, Any]]:
    """The parameters in groups, each with its own settings; ``scale`` is its factor on the learning rate.

    A parameter belongs to the first group whose prefix fits, or else to the stage's own, which comes first.
    """
    own = Group("", betas=stage.betas)
    chosen: dict[Group, list[nn.Parameter]] = {group: [] for group in (own, *stage.groups)}
    for name, parameter in named:
        chosen[next((g for g in stage.groups if name.startswith(g.prefix)), own)].append(parameter)
    return [
        {"params": parameters, "betas": group.betas, "weight_decay": group.weight_decay, "scale": group.lr}
        for group, parameters in chosen.items()
        if parameters
    ]


def _adamw(*, adam8bit: bool, shard: bool) -> type[torch.optim.AdamW]:
    """AdamW, or the one of bitsandbytes with states of 8 bits.

    Raises:
        TrainingError: bitsandbytes is not installed.
    """
    if not adam8bit:
        return torch.optim.AdamW
    if shard:
        raise TrainingError("--adam8bit cannot be spread over processes: leave out --fsdp")
    try:
        module = importlib.import_module("bitsandbytes.optim")
    except ImportError as error:
        raise TrainingError("--adam8bit needs bitsandbytes: pip install bitsandbytes") from error
    found: type[torch.optim.AdamW] = module.AdamW8bit  # takes the same arguments
    return found
