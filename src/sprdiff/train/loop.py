"""The training loop: one optimiser, EMA, schedule, checkpoints, validation; the same for every stage.

Everything random in step ``s`` is drawn from (seed, s, rank), so a killed run resumes as if it had not stopped.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import TrainingError
from ..models.latent_codec import forbid_tf32
from ..models.sprdiff import SPRDiff
from . import checkpoints
from .batches import Store, in_parts, make_sampler, moved
from .checkpoints import DERIVED, Checkpoint
from .data.photos import PhotoStore
from .ema import EMA
from .latents import Batch
from .optimizers import make_optimizer
from .recipes import Stage
from .report import Report
from .scaling import LossScale, networks
from .sd.sharding import assign, restored, shard, whole
from .stages import StageModule

log = logging.getLogger(__name__)

WARMUP = 100
PATIENCE = 20
"""Steps in a row whose gradient is no number: one is skipped, so many mean that the run has diverged."""
SYNCHRONISE = 50
"""Steps between two looks at what the device has computed: every look waits for it."""
DECAY = 0.3
"""Share of the stage over which the learning rate falls to zero, at the end (warm-up, stable, decay)."""
TRIED = 4
"""Steps of each precision that ``auto`` times, after one to warm up."""


@dataclass(frozen=True)
class Options:
    """How one leg is run; the recipe itself is the Stage."""

    out: Path
    seed: int = 0
    save_every: float = 180.0
    validate_every: int = 1000
    clip: float = 1.0
    precision: str = "fp32"
    """Of the networks: fp32, tf32, fp16 or bf16 (autocast), or auto: what the stage says, or else the faster one."""
    accumulate: int = 1
    """In how many parts the gradient of a batch is computed, one after another."""
    minutes: float | None = None
    """How long this leg lasts; None: to the last step of the stage."""
    decay: bool = False
    """Whether the learning rate falls to zero over the end of a leg of so many minutes, which ends the stage."""
    compile: bool = False
    """Whether torch compiles the stage first: worth its minutes on a GPU only."""
    adam8bit: bool = False
    """Optimiser states of 8 bits (bitsandbytes)."""
    shard: bool = False
    """Parameters, gradients and optimiser states spread over the processes (FSDP) instead of copied to each (DDP)."""


def schedule(done: float, warm: int) -> float:
    """Factor on the learning rate, `done` of the stage being over and `warm` steps of this leg.

    Linear warm-up in every leg, constant, then linear decay to zero over the last 30% of the stage.
    """
    return min(1.0, (warm + 1) / WARMUP) * min(1.0, max(0.0, 1 - done) / DECAY)


class Trainer:
    """Runs one stage from its first (or resumed) step to its last."""

    def __init__(self, stage: Stage, module: StageModule, store: Store, valid: PhotoStore | None,
                 options: Options, accelerator: Accelerator) -> None:  # fmt: skip
        self.stage, self.options, self.accelerator, self.valid = stage, options, accelerator, valid
        if stage.batch % options.accumulate:
            raise TrainingError(f"a batch of {stage.batch} cannot be computed in {options.accumulate} equal parts")
        self.precision = module.set_precision(options.precision, accelerator.device)
        self.module = module if options.shard else module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: SPRDiff = module.model
        self.sampler = make_sampler(store, stage, options.seed, accelerator)
        if options.shard:
            shard(module, accelerator)
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.names, self.parameters = [n for n, _ in named], [p for _, p in named]
        self.optimizer = make_optimizer(stage, named, adam8bit=options.adam8bit, shard=options.shard)
        if options.shard:
            self.wrapped, self.prepared = self.module, accelerator.prepare(self.optimizer)
        else:
            self.wrapped, self.prepared = accelerator.prepare(self.module, self.optimizer)
        if options.compile:
            forbid_tf32()
            self.wrapped = torch.compile(self.wrapped)
        self.ema = EMA(self.parameters, stage.ema)
        self.step = self.first = self.warned = 0
        self.bad, self.skipped = torch.zeros(2, device=accelerator.device)
        self.started = time.monotonic()
        self.scale = LossScale(accelerator.device)
        self.path = options.out / f"{stage.name}.safetensors"

    # ------------------------------------------------------------------ one step

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns the scalars of the stage module."""
        done = self.done()
        factor = schedule(done, self.step - self.first)
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.lr * factor * group.get("scale", 1.0)
        self.module.begin(self.step, done)
        scalars = self.gradients(self.step)
        self.prepared.step()
        self.prepared.zero_grad()
        self.ema.update(self.step)
        self.step += 1
        return scalars

    def gradients(self, step: int) -> dict[str, Tensor]:
        """The scalars of a step, and its clipped gradients in the parameters; those that are no numbers become zero."""
        rank = self.accelerator.process_index
        x = moved(self.sampler.batch(step, rank, self.stage.batch), self.accelerator.device)
        torch.manual_seed((self.options.seed * 1_000_003 + step) * 64 + rank)
        level = self.module.draw_levels(self.stage.batch, self.accelerator.device)
        scalars = self._backward(x, level)
        # A discriminator's gradients are tens of times larger: clipped apart, they do not silence the model's.
        own = [n.startswith("model.") for n in self.names]
        for of_model, key in ((True, "grad"), (False, "grad_beside")):
            chosen = [p for p, mine in zip(self.parameters, own, strict=True) if mine is of_model]
            if chosen:
                scalars[key] = whole(self.accelerator.clip_grad_norm_(chosen, self.options.clip))
        finite = torch.stack([torch.isfinite(v.detach()) for k, v in scalars.items() if k.startswith("grad")]).all()
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad = torch.where(finite, parameter.grad, 0.0)
        self.bad = torch.where(finite, 0.0, self.bad + 1)
        self.skipped = self.skipped + ~finite
        if self.precision == "fp16":
            self.scale.update(finite)
        return scalars

    def _backward(self, x: Tensor | Batch, level: Tensor) -> dict[str, Tensor]:
        """The scalars of a batch, and its gradients in the parameters, summed over its parts."""
        count, found = self.options.accumulate, list[dict[str, Tensor]]()
        for i, (part, levels) in enumerate(zip(in_parts(x, count), level.chunk(count), strict=True)):
            # Processes need to hear of each other's gradients once, after the last part.
            alone = self.accelerator.no_sync(self.wrapped) if i < count - 1 else nullcontext()
            with alone:
                with self.networks():
                    scalars: dict[str, Tensor] = self.wrapped(part, levels)
                loss = scalars["loss"] if count == 1 else scalars["loss"] / count
                self.accelerator.backward(self.scale.up(loss) if self.precision == "fp16" else loss)
            found.append(scalars)
        if self.precision == "fp16":
            self.scale.down(self.parameters)
        return found[0] if count == 1 else {k: torch.stack([s[k].detach() for s in found]).mean(0) for k in found[0]}

    def networks(self) -> AbstractContextManager[None]:
        """The precision of the networks."""
        return networks(self.precision, self.accelerator.device, compiled=self.options.compile)

    def done(self) -> float:
        """Which part of the stage is over, 0-1."""
        if self.options.minutes is None:
            return self.step / self.stage.steps
        return self.elapsed() if self.options.decay else 0.0

    def elapsed(self) -> float:
        """Which part of this leg's minutes is over."""
        assert self.options.minutes is not None
        return min(1.0, (time.monotonic() - self.started) / (60 * self.options.minutes))

    def _over(self) -> bool:
        return self.step >= self.stage.steps if self.options.minutes is None else self.elapsed() >= 1

    def choose_precision(self) -> None:
        """Time a few steps of both precisions and take the faster; weights and random numbers stay as they were."""
        if self.precision != "auto":
            return
        # Stages keep averages and controllers of their own, which move with every gradient.
        before = {name: value.clone() for name, value in self.module.state_dict().items()}
        random = torch.get_rng_state()
        self.module.begin(self.step, self.done())
        took = {precision: self._seconds(precision) for precision in ("fp32", "bf16")}
        for name, value in self.module.state_dict().items():
            value.copy_(before[name])
        torch.set_rng_state(random)
        self.bad.zero_()
        self.skipped.zero_()
        self.precision = min(took, key=lambda p: took[p])
        log.warning(
            "%s: fp32 takes %.3f s a step, bf16 %.3f s: training in %s",
            self.stage.name, took["fp32"], took["bf16"], self.precision,
        )  # fmt: skip

    def _seconds(self, precision: str) -> float:
        """Of one step in a precision, the same number in all processes."""
        self.precision = precision
        for turn in range(TRIED + 1):
            if turn == 1:
                began = time.perf_counter()
            scalars = self.gradients(self.step + turn)
            self.prepared.zero_grad()
            float(scalars["grad"])  # waits for the gradients
        own = torch.tensor((time.perf_counter() - began) / TRIED, device=self.accelerator.device)
        return float(self.accelerator.reduce(own, "mean"))

    def _check_finite(self) -> None:
        bad, skipped = (int(v) for v in torch.stack([self.bad, self.skipped]).tolist())
        if skipped > self.warned:
            log.warning(
                "up to step %d: the gradient of %d steps was not finite, they are skipped (%d in a row)",
                self.step, skipped - self.warned, bad,
            )  # fmt: skip
            self.warned = skipped
        if bad >= PATIENCE:
            raise TrainingError(
                f"diverged: no finite gradient in {bad} steps up to step {self.step}; {self.path} is the last good one"
            )

    # ------------------------------------------------------------------ the run

    def run(self, report: Report) -> None:
        """Train to the last step, saving and validating on the way.

        Raises:
            TrainingError: the run diverged, or a checkpoint cannot be written.
        """
        self.choose_precision()
        saved = self.started = time.monotonic()
        while not self._over():
            scalars = self.train_step()
            report.step(self.step, scalars, self.optimizer.param_groups[0]["lr"])
            if self.step % SYNCHRONISE == 0:
                self._check_finite()
            if self.step % self.options.validate_every == 0 and not self._over():
                self.save_if_sound()  # whatever validation meets, the steps are not lost
                saved = time.monotonic()
                self.validate(report)
            if time.monotonic() - saved > self.options.save_every and not self._over() and not self.bad:
                self.save()
                saved = time.monotonic()
        self._check_finite()
        self.finish()
        self.save()  # first: nothing that goes wrong in validation shall cost the end of a leg
        self.validate(report)
        self.accelerator.wait_for_everyone()  # whoever goes on here finds the checkpoint

    def finish(self) -> None:
        if type(self.module).finish is StageModule.finish:
            return
        with self.ema:
            batches = [self.sampler.batch(10**9 + i, 0, self.stage.batch) for i in range(16)]
            self.module.finish([moved(b, self.accelerator.device) for b in batches])

    @torch.no_grad()
    def validate(self, report: Report) -> None:
        if self.valid is None:
            return
        # Of a model in shards no process can compute anything alone.
        if self.accelerator.is_main_process or self.options.shard:
            try:
                with self.ema, self.networks():
                    report.validate(self.step, self.module, self.valid, self.accelerator.device)
            except torch.OutOfMemoryError:
                log.warning(
                    "step %d: too little memory for validation, it is left out: give a smaller --validate-crop",
                    self.step,
                )
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------------ checkpoints

    def save_if_sound(self) -> None:
        """Write the checkpoint, unless the gradient of the last step was no number."""
        if not self.bad:
            self.save()

    def save(self) -> None:
        """Write the resumable checkpoint (main process; shards are gathered from all)."""
        if not self.accelerator.is_main_process and not self.options.shard:
            return
        tensors: dict[str, Tensor] = {}
        with self.ema:
            tensors.update({f"ema.{k}": whole(v).clone() for k, v in checkpoints.own_state(self.model).items()})
        tensors.update({f"extra.{k}": whole(v).clone() for k, v in self.module.extra_state().items()})
        for name, parameter, average in zip(self.names, self.parameters, self.ema.values, strict=True):
            tensors[f"model.{name}"] = whole(parameter.detach())
            tensors[f"average.{name}"] = whole(average)
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state = whole(value) if isinstance(value, Tensor) else torch.tensor(value)
                tensors[f"{key}.{name}"] = state if state.dim() else state.reshape(1)
        if self.accelerator.is_main_process:
            config, sources = self.model.config, checkpoints.sources_of(self.model)
            c = Checkpoint(self.stage.name, self.step, config, self.stage.networks, tensors, sources,
                           self.stage.steps, self.first)  # fmt: skip
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
        for name, parameter, average in zip(self.names, self.parameters, self.ema.values, strict=True):
            try:
                assign(parameter.data, weights[name])
                assign(average, averages[name])
                if state := {key: restored(key, part[name], parameter) for key, part in states.items() if name in part}:
                    self.optimizer.state[parameter] = state
            except (KeyError, RuntimeError) as error:
                raise TrainingError(f"{self.path}: cannot resume, {name} does not fit ({error})") from error
        self.step, self.first = c.step, c.first

    def load_extras(self, c: Checkpoint) -> None:
        """Take over heads or critic of a checkpoint of the same stage.

        Raises:
            TrainingError: one is missing or does not fit.
        """
        stored = c.part("extra")
        for name, value in self.module.extra_state().items():
            if name.startswith(DERIVED) and name not in stored:
                continue
            if name not in stored or stored[name].shape != value.shape:
                raise TrainingError(f"the checkpoint has no fitting {name}")
            assign(value, stored[name].to(value.dtype))
