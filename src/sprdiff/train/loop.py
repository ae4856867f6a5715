"""The training loop, the same for every stage: optimiser, EMA, schedule, checkpoints, validation.

All random numbers of a step depend on seed, step and rank only. A killed run therefore resumes as if it had
never stopped.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import TrainingError
from ..models.integer_networks import forbid_tf32
from ..models.sprdiff import SPRDiff
from . import checkpoints
from .batches import Store, in_parts, make_sampler, moved
from .checkpoints import Checkpoint
from .data.photos import PhotoStore
from .ema import ModelEMA
from .latents.store import Batch
from .optimizers.factory import make_optimizer
from .optimizers.muon import Muon
from .optimizers.soap import Soap
from .options import TrainOptions
from .precision import LossScale, networks
from .recipes import Stage
from .sd.sharding import shard, whole
from .stages.base import StageModule
from .state import collect, load_extras, restore
from .validation.report import Report

log = logging.getLogger(__name__)

WARMUP = 100
PATIENCE = 20
"""A step whose gradient is not finite is skipped; after this many in a row the run has diverged."""
CLIP = 1.0
"""The largest norm of a gradient."""
SYNCHRONISE = 50
"""Steps between two checks of what the device has computed, for which the host has to wait."""
DECAY = 0.3
"""The last share of the stage, over which the learning rate falls to zero (warm-up, stable, decay)."""
TRIED = 4
"""How many steps of each precision ``auto`` times, after one for warming up."""


def schedule(done: float, warm: int) -> float:
    """Return the factor on the learning rate: linear warm-up, constant, then linear decay to zero.

    Args:
        done: the part of the stage that is done, 0-1.
        warm: how many steps of this leg are done.
    """
    return min(1.0, (warm + 1) / WARMUP) * min(1.0, max(0.0, 1 - done) / DECAY)


class Trainer:
    """Runs one stage from its first (or resumed) step to its last."""

    def __init__(
        self,
        stage: Stage,
        module: StageModule,
        store: Store,
        valid: PhotoStore | None,
        options: TrainOptions,
        accelerator: Accelerator,
    ) -> None:
        sharded = options.sd.shard
        self.stage, self.options, self.accelerator, self.valid = stage, options, accelerator, valid
        if stage.batch % options.accumulate:
            raise TrainingError(
                f"a batch of {stage.batch} cannot be computed in {options.accumulate} equal parts"
            )
        self.precision = module.set_precision(options.precision, accelerator.device)
        self.module = module
        if not sharded:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: SPRDiff = module.model
        self.sampler = make_sampler(store, stage, options.seed, accelerator)
        if sharded:
            shard(module, accelerator)
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.optimizer = make_optimizer(stage, named, adam8bit=options.sd.adam8bit, shard=sharded)
        self.wrapped: Any
        if sharded:
            self.wrapped, self.prepared = self.module, accelerator.prepare(self.optimizer)
        else:
            self.wrapped, self.prepared = accelerator.prepare(self.module, self.optimizer)
        self.ema = ModelEMA(module, stage.ema)  # now that the parameters are on the device
        if options.compile:
            forbid_tf32()
            self.wrapped = torch.compile(self.wrapped)
        self.step = self.first = self.warned = 0
        self.bad, self.skipped = torch.zeros(2, device=accelerator.device)
        self.started = time.monotonic()
        self.scale = LossScale(accelerator.device)
        self.path = options.out / f"{stage.name}.safetensors"

    # ------------------------------------------------------------------ one step

    def train_step(self) -> dict[str, Tensor]:
        """Run one step of the optimiser; return the scalars of the stage."""
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
        """Compute the clipped gradients of a step, and return its scalars; gradients that are not finite
        become zero."""
        rank = self.accelerator.process_index
        x = moved(self.sampler.batch(step, rank, self.stage.batch), self.accelerator.device)
        torch.manual_seed((self.options.seed * 1_000_003 + step) * 64 + rank)
        level = self.module.draw_levels(self.stage.batch, self.accelerator.device)
        scalars = self._backward(x, level)
        # A discriminator's gradients are tens of times larger than the model's, so they are clipped
        # separately.
        for of_model, key in ((True, "grad"), (False, "grad_beside")):
            chosen = [p for name, p in self.ema.parameters.items() if name.startswith("model.") is of_model]
            if chosen:
                scalars[key] = whole(self.accelerator.clip_grad_norm_(chosen, CLIP))
        finite = torch.stack(
            [torch.isfinite(v.detach()) for k, v in scalars.items() if k.startswith("grad")]
        ).all()
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad = torch.where(finite, parameter.grad, 0.0)
        self.bad = torch.where(finite, 0.0, self.bad + 1)
        self.skipped = self.skipped + ~finite
        if self.precision == "fp16":
            self.scale.update(finite)
        return scalars

    def _backward(self, x: Tensor | Batch, level: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of a batch, summed over its parts, and return its scalars."""
        count, found = self.options.accumulate, list[dict[str, Tensor]]()
        for i, (part, levels) in enumerate(zip(in_parts(x, count), level.chunk(count), strict=True)):
            # Processes exchange their gradients once, after the last part.
            alone = self.accelerator.no_sync(self.wrapped) if i < count - 1 else nullcontext()
            with alone:
                with self.networks():
                    scalars: dict[str, Tensor] = self.wrapped(part, levels)
                loss = scalars["loss"] if count == 1 else scalars["loss"] / count
                self.accelerator.backward(self.scale.up(loss) if self.precision == "fp16" else loss)
            found.append(scalars)
        if self.precision == "fp16":
            self.scale.down(self.parameters)
        return (
            found[0]
            if count == 1
            else {k: torch.stack([s[k].detach() for s in found]).mean(0) for k in found[0]}
        )

    def networks(self) -> AbstractContextManager[None]:
        """Return the context in which the networks run."""
        return networks(self.precision, self.accelerator.device, compiled=self.options.compile)

    def done(self) -> float:
        """Return the part of the stage that is done, 0-1."""
        if self.options.minutes is None:
            return self.step / self.stage.steps
        return self.elapsed() if self.options.decay else 0.0

    def elapsed(self) -> float:
        """Return the part of this leg's minutes that is over."""
        assert self.options.minutes is not None
        return min(1.0, (time.monotonic() - self.started) / (60 * self.options.minutes))

    def _over(self) -> bool:
        return self.step >= self.stage.steps if self.options.minutes is None else self.elapsed() >= 1

    def choose_precision(self) -> None:
        """Choose the precision if it is ``auto``, and let the optimiser multiply in it, too."""
        if self.precision == "auto":
            self.precision = self._faster()
        if isinstance(self.optimizer, Soap | Muon):
            self.optimizer.half = self.precision == "bf16"

    def _faster(self) -> str:
        """Time a few steps in both precisions and return the faster; weights and random numbers are
        restored."""
        # Stages have averages and controllers that change with every step.
        before = {name: value.clone() for name, value in self.module.state_dict().items()}
        random = torch.get_rng_state()
        self.module.begin(self.step, self.done())
        took = {precision: self._seconds(precision) for precision in ("fp32", "bf16")}
        for name, value in self.module.state_dict().items():
            value.copy_(before[name])
        torch.set_rng_state(random)
        self.bad.zero_()
        self.skipped.zero_()
        faster = min(took, key=lambda p: took[p])
        log.warning(
            "%s: fp32 takes %.3f s a step, bf16 %.3f s: training in %s",
            self.stage.name,
            took["fp32"],
            took["bf16"],
            faster,
        )
        return faster

    def _seconds(self, precision: str) -> float:
        """Measure the seconds of a step in a precision; the result is the same in all processes."""
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
                self.step,
                skipped - self.warned,
                bad,
            )
            self.warned = skipped
        if bad >= PATIENCE:
            raise TrainingError(
                f"training has diverged: no gradient was finite in {bad} steps up to step {self.step}; "
                f"{self.path} is the last good checkpoint"
            )

    # ------------------------------------------------------------------ the run

    def run(self, report: Report) -> None:
        """Train to the last step; save and validate regularly.

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
                self.save_if_sound()  # if validation fails, no step is lost
                saved = time.monotonic()
                self.validate(report)
            if time.monotonic() - saved > self.options.save_every and not self._over() and not self.bad:
                self.save()
                saved = time.monotonic()
        self._check_finite()
        self.finish()
        self.save()  # this comes first, so that a failure of validation does not cost the end of a leg
        self.validate(report)
        self.accelerator.wait_for_everyone()  # then every process finds the checkpoint

    def finish(self) -> None:
        """Let the stage complete itself with a few batches, if it has to."""
        if type(self.module).finish is StageModule.finish:
            return
        with self.ema:
            batches = [self.sampler.batch(10**9 + i, 0, self.stage.batch) for i in range(16)]
            self.module.finish([moved(b, self.accelerator.device) for b in batches])

    @torch.no_grad()
    def validate(self, report: Report) -> None:
        """Validate the averaged weights, if there are photographs for it."""
        if self.valid is None:
            return
        # A process that holds a shard of the model cannot compute anything alone.
        if self.accelerator.is_main_process or self.options.sd.shard:
            try:
                with self.ema, self.networks():
                    report.validate(self.step, self.module, self.valid, self.accelerator.device)
            except torch.OutOfMemoryError:
                log.warning(
                    "step %d: too little memory for validation, it is left out: "
                    "give a smaller --validate-crop",
                    self.step,
                )
        self.accelerator.wait_for_everyone()

    # ------------------------------------------------------------------ checkpoints

    def save_if_sound(self) -> None:
        """Write the checkpoint, unless the gradient of the last step was not finite."""
        if not self.bad:
            self.save()

    def save(self) -> None:
        """Write the checkpoint (by the main process; all processes take part if the model is sharded)."""
        if not self.accelerator.is_main_process and not self.options.sd.shard:
            return
        found = collect(self)
        if self.accelerator.is_main_process:
            checkpoints.save(self.path, found)

    def resume(self) -> None:
        """Continue exactly where the checkpoint in the output folder was written.

        Raises:
            TrainingError: it is missing or damaged, or belongs to another stage or configuration.
        """
        restore(self, checkpoints.load(self.path), self.path)

    def start_from(self, c: Checkpoint) -> None:
        """Continue at the step of a checkpoint of the same stage, with a new optimiser and warm-up.

        Raises:
            TrainingError: what the stage has beside the model is missing or does not fit.
        """
        load_extras(self.module, c)
        self.step = self.first = c.step
