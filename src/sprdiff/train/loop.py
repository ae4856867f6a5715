"""The training loop: one optimiser, EMA, schedule, checkpoints, validation; the same for every stage.

Everything random in step ``s`` is drawn from (seed, s, rank), so a killed run resumes as if it had not stopped.
"""

from __future__ import annotations

import importlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..errors import TrainingError
from ..models.config import LEVELS
from ..models.sprdiff import SPRDiff
from . import checkpoints
from .checkpoints import Checkpoint
from .data.photos import CropSampler, PhotoStore
from .data.shards import ShardCrops
from .recipes import Stage
from .report import Report
from .sd.sharding import assign, shard, whole
from .soap import Soap
from .stages import StageModule

log = logging.getLogger(__name__)

WARMUP = 100
PATIENCE = 20
"""Steps in a row whose gradient is no number: one is skipped, so many mean that the run has diverged."""
DECAY = 0.3
"""Share of the steps over which the rate of learning falls to zero, at the end (warm-up, stable, decay)."""


@dataclass(frozen=True)
class Options:
    """How one leg is run; the recipe itself is the Stage."""

    out: Path
    seed: int = 0
    save_every: float = 180.0
    validate_every: int = 1000
    clip: float = 1.0
    adam8bit: bool = False
    """Optimiser states of 8 bits (bitsandbytes)."""
    shard: bool = False
    """Parameters, gradients and optimiser states spread over the processes (FSDP) instead of copied to each (DDP)."""


def schedule(step: int, steps: int) -> float:
    """Factor on the rate of learning: linear warm-up, constant, then linear decay to zero over the last 30%."""
    warm = min(1.0, (step + 1) / min(WARMUP, max(steps // 10, 1)))
    return warm * min(1.0, (steps - step) / max(DECAY * steps, 1.0))


class Trainer:
    """Runs one stage from its first (or resumed) step to its last."""

    def __init__(self, stage: Stage, module: StageModule, store: PhotoStore | ShardCrops, valid: PhotoStore,
                 options: Options, accelerator: Accelerator) -> None:  # fmt: skip
        self.stage, self.options, self.accelerator, self.valid = stage, options, accelerator, valid
        module.steps = stage.steps
        self.module = module if options.shard else module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: SPRDiff = module.model
        self.sampler = CropSampler(store, stage.crop, options.seed) if isinstance(store, PhotoStore) else store
        if options.shard:
            shard(module, accelerator)
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.names, self.parameters = [n for n, _ in named], [p for _, p in named]
        self.optimizer = (
            Soap(named, lr=stage.lr)
            if stage.soap
            else _adamw(options)(self.parameters, lr=stage.lr, betas=stage.betas, weight_decay=1e-4)
        )
        if options.shard:
            self.wrapped, self.prepared = self.module, accelerator.prepare(self.optimizer)
        else:
            self.wrapped, self.prepared = accelerator.prepare(self.module, self.optimizer)
        self.ema = [p.detach().clone() for p in self.parameters]
        self.step = self.skipped = 0
        self.path = options.out / f"{stage.name}.safetensors"

    # ------------------------------------------------------------------ one step

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns the scalars of the stage module."""
        rank = self.accelerator.process_index
        x = self.sampler.batch(self.step, rank, self.stage.batch).to(self.accelerator.device)
        torch.manual_seed((self.options.seed * 1_000_003 + self.step) * 64 + rank)
        level = self._levels(x)
        factor = schedule(self.step, self.stage.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.lr * factor
        self.module.step = self.step
        with self.accelerator.autocast():
            scalars: dict[str, Tensor] = self.wrapped(x, level)
        self.accelerator.backward(scalars["loss"])
        # A critic's gradients are tens of times larger: clipped on their own, they do not silence the model's.
        own = [n.startswith("model.") for n in self.names]
        for of_model, key in ((True, "grad"), (False, "grad_beside")):
            chosen = [p for p, mine in zip(self.parameters, own, strict=True) if mine is of_model]
            if chosen:
                scalars[key] = whole(self.accelerator.clip_grad_norm_(chosen, self.options.clip))
        self._update(all(bool(torch.isfinite(v)) for k, v in scalars.items() if k.startswith("grad")))
        self.prepared.zero_grad()
        decay = min(self.stage.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1 - decay)
        self.step += 1
        return scalars

    @staticmethod
    def _levels(x: Tensor) -> Tensor:
        """[N]: every other one even over all levels, the rest leaning to the middle, where most files are made."""
        uniform = torch.rand(2, x.shape[0], device=x.device)
        leaning = torch.arange(x.shape[0], device=x.device) % 2 == 0
        level = torch.where(leaning, uniform.mean(0), uniform[0])
        return level.mul(LEVELS).floor().clamp(max=LEVELS - 1)

    def _update(self, finite: bool) -> None:
        self.skipped = 0 if finite else self.skipped + 1
        if finite:
            self.prepared.step()
            return
        log.warning("step %d: the gradient is not finite, skipped", self.step)
        if self.skipped >= PATIENCE:
            raise TrainingError(f"diverged: no finite gradient in {PATIENCE} steps up to step {self.step}")

    # ------------------------------------------------------------------ the run

    def run(self, report: Report) -> None:
        """Train to the last step, saving and validating on the way.

        Raises:
            TrainingError: the run diverged, or a checkpoint cannot be written.
        """
        saved = time.monotonic()
        while self.step < self.stage.steps:
            scalars = self.train_step()
            report.step(self.step, scalars, self.optimizer.param_groups[0]["lr"])
            if self.step % self.options.validate_every == 0:
                self.validate(report)
            if time.monotonic() - saved > self.options.save_every and self.step < self.stage.steps:
                self.save()
                saved = time.monotonic()
        self.finish()
        self.validate(report)
        self.save()
        self.accelerator.wait_for_everyone()  # whoever goes on here finds the checkpoint

    def finish(self) -> None:
        if type(self.module).finish is StageModule.finish:
            return
        with self.averaged():
            batches = [self.sampler.batch(10**9 + i, 0, self.stage.batch) for i in range(16)]
            self.module.finish([b.to(self.accelerator.device) for b in batches])

    def averaged(self) -> _Swapped:
        """Context in which the model holds its EMA weights."""
        return _Swapped(self.parameters, self.ema)

    @torch.no_grad()
    def validate(self, report: Report) -> None:
        # Of a model in shards no process can compute anything alone.
        if self.accelerator.is_main_process or self.options.shard:
            with self.averaged():
                report.validate(self.step, self.module, self.valid, self.accelerator.device)
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Write the resumable checkpoint (main process; shards are gathered from all)."""
        if not self.accelerator.is_main_process and not self.options.shard:
            return
        tensors: dict[str, Tensor] = {}
        with self.averaged():
            tensors.update({f"ema.{k}": whole(v).clone() for k, v in checkpoints.own_state(self.model).items()})
        tensors.update({f"extra.{k}": whole(v).clone() for k, v in self.module.extra_state().items()})
        for name, parameter, average in zip(self.names, self.parameters, self.ema, strict=True):
            tensors[f"model.{name}"] = whole(parameter.detach())
            tensors[f"average.{name}"] = whole(average)
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state = whole(value) if isinstance(value, Tensor) else torch.tensor(value)
                tensors[f"{key}.{name}"] = state if state.dim() else state.reshape(1)
        if self.accelerator.is_main_process:
            config, sources = self.model.config, checkpoints.sources_of(self.model)
            c = Checkpoint(self.stage.name, self.step, config, self.stage.networks, tensors, sources)
            checkpoints.save(self.path, c)

    def resume(self) -> None:
        """Continue from the checkpoint in the output folder, exactly.

        Raises:
            TrainingError: it is missing, damaged, or of another stage or configuration.
        """
        c = checkpoints.load(self.path)
        if c.stage != self.stage.name or c.config != self.model.config:
            raise TrainingError(f"{self.path}: is of stage {c.stage} or of another configuration")
        checkpoints.check_sources(self.model, c, self.path)
        own, stored = checkpoints.own_state(self.model), c.part("ema")
        if wrong := set(own) ^ set(stored):
            raise TrainingError(f"{self.path}: weights missing or unknown, {sorted(wrong)[0]} for one")
        for name, value in stored.items():
            assign(own[name], value)
        self.load_extras(c)
        weights, averages = c.part("model"), c.part("average")
        # In one order on all processes: of a sharded model they hand each other the pieces.
        kept = sorted({k.split(".", 1)[0] for k in c.tensors} - {"ema", "extra", "model", "average"})
        states = {key: c.part(key) for key in kept}
        for name, parameter, average in zip(self.names, self.parameters, self.ema, strict=True):
            try:
                assign(parameter.data, weights[name])
                assign(average, averages[name])
                if state := {key: _state(key, part[name], parameter) for key, part in states.items() if name in part}:
                    self.optimizer.state[parameter] = state
            except (KeyError, RuntimeError) as error:
                raise TrainingError(f"{self.path}: cannot resume, {name} does not fit ({error})") from error
        self.step = c.step

    def load_extras(self, c: Checkpoint) -> None:
        """Take over heads or critic of a checkpoint of the same stage.

        Raises:
            TrainingError: one is missing or does not fit.
        """
        stored = c.part("extra")
        for name, value in self.module.extra_state().items():
            if name not in stored or stored[name].shape != value.shape:
                raise TrainingError(f"the checkpoint has no fitting {name}")
            assign(value, stored[name].to(value.dtype))


def _adamw(options: Options) -> type[torch.optim.AdamW]:
    """AdamW, or the one of bitsandbytes with states of 8 bits.

    Raises:
        TrainingError: bitsandbytes is not installed.
    """
    if not options.adam8bit:
        return torch.optim.AdamW
    if options.shard:
        raise TrainingError("--adam8bit cannot be spread over processes: leave out --fsdp")
    try:
        module = importlib.import_module("bitsandbytes.optim")
    except ImportError as error:
        raise TrainingError("--adam8bit needs bitsandbytes: pip install bitsandbytes") from error
    found: type[torch.optim.AdamW] = module.AdamW8bit  # takes the same arguments
    return found


def _state(key: str, stored: Tensor, parameter: nn.Parameter) -> Tensor | int:
    """One entry of the optimiser's state as it was."""
    if key == "step":  # torch counts in a tensor on the CPU, bitsandbytes in an integer
        return stored.reshape(()) if stored.is_floating_point() else int(stored)
    if stored.shape != parameter.shape or not stored.is_floating_point():
        return stored.to(parameter.device)
    state = torch.empty_like(parameter, requires_grad=False)
    assign(state, stored)
    return state


class _Swapped:
    """Swaps the parameters with their averages for the length of a ``with`` block."""

    def __init__(self, parameters: list[nn.Parameter], ema: list[Tensor]) -> None:
        self.parameters, self.ema = parameters, ema

    def _swap(self) -> None:
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.ema, strict=True):
                held = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(held)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()
