"""Fully sharded data parallelism (FSDP2) in three functions, which do next to nothing on tensors that are not
sharded.

accelerate's own FSDP is for GPUs only; torch's runs on gloo as well, so two processes on a CPU test what GPUs
run.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ...errors import TrainingError

UNITS = ("BasicTransformerBlock", "ResnetBlock2D", "Dinov2Layer", "Dinov2WithRegistersLayer")
"""Classes of the pretrained parts that are gathered one at a time; everything else is gathered with the
whole."""


def shard(module: nn.Module, accelerator: Accelerator) -> None:
    """Spread the parameters of a stage module over all processes, in place.

    Raises:
        TrainingError: there is one process only.
    """
    if accelerator.num_processes < 2:
        raise TrainingError("--fsdp needs several processes: start them with torchrun")
    module.to(accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for part in list(module.modules()):
        if type(part).__name__ in UNITS:
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(module, "reconstruct")


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor; all processes must ask for a sharded one together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def assign(target: Tensor, value: Tensor) -> None:
    """Copy a full tensor into one that may be sharded.

    Raises:
        RuntimeError: another shape.
    """
    with torch.no_grad():
        if not isinstance(target, DTensor):
            target.copy_(value)
            return
        if target.shape != value.shape:
            raise RuntimeError(f"shape {tuple(value.shape)}, not {tuple(target.shape)}")
        value = value.to(target.device, target.dtype)
        target.copy_(distribute_tensor(value, target.device_mesh, target.placements))


def restored(key: str, stored: Tensor, parameter: nn.Parameter) -> Tensor | int:
    """Return one entry of the optimiser's state of a parameter in the form that a checkpoint has."""
    if key == "step":  # torch counts in a tensor on the CPU, bitsandbytes in an integer
        return stored.reshape(()) if stored.is_floating_point() else int(stored)
    if stored.shape != parameter.shape or not stored.is_floating_point():
        return stored.to(parameter.device)
    state = torch.empty_like(parameter, requires_grad=False)
    assign(state, stored)
    return state
