"""One stage of training from its options: recipe, model, data, trainer."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..errors import TrainingError
from ..models.config import PRESETS
from . import checkpoints
from .batches import Store
from .checkpoints import Checkpoint
from .data.photos import PhotoStore, holdout, open_store
from .data.remote import ShardCache
from .data.shards import ShardCrops
from .initial import build, load_initial, read_initial
from .latents.store import LatentStore
from .loop import Trainer
from .options import SD_PRESET, TrainOptions
from .precision import check_precision, choose_device
from .recipes import STAGES, Stage
from .sd.recipes import RATES as SD_RATES
from .sd.recipes import SD_STAGES
from .sd.setup import default_workers, find_alex, load_lpips
from .validation.rates import Judgement
from .validation.report import VALIDATION_PHOTOS, Report

SD_VALIDATE_CROP = 512
"""The default of `validate_crop` for preset `sd`: whole photographs would need many gigabytes."""


def run_stage(options: TrainOptions) -> None:
    """Run one stage of training; write checkpoints, a log and TensorBoard files into the folder
    `options.out`.

    Raises:
        TrainingError: an option, the data or a checkpoint is wrong, or the run diverged.
        WeightsError: a pretrained part of preset `sd` cannot be loaded.
    """
    recipe = recipe_of(options)
    check_options(options, recipe)
    own = options.out / f"{recipe.name}.safetensors"
    resume = options.resume and own.exists()
    start = checkpoints.load(own) if resume else _same_stage(options)
    recipe = _with_end(options, recipe, start, resume=resume)
    if options.threads:
        torch.set_num_threads(options.threads)
    accelerator = Accelerator(cpu=options.device == "cpu")
    if options.minutes is not None and accelerator.num_processes > 1:
        raise TrainingError(
            "several processes would not stop at the same step: give --steps in place of --minutes"
        )
    torch.manual_seed(options.seed)
    latents = _latents(options, recipe) if recipe.latents else None
    model = build(options.preset, options.sd)
    load_initial(model, recipe, options.init, resume=resume)
    module = recipe.build(model, _trained(options, recipe), **_settings(options, recipe))
    with _data(options, recipe, latents, accelerator) as (store, valid):
        trainer = Trainer(recipe, module, store, valid, options, accelerator)
        if resume:
            trainer.resume()
        elif start is not None:
            trainer.start_from(start)
        judged = _judgement(options, accelerator.device)
        report = Report(
            options.out,
            recipe.name,
            recipe.steps,
            active=accelerator.is_main_process,
            features=options.features,
            judged=judged,
        )
        try:
            trainer.run(report)
        finally:
            report.close()


def recipe_of(options: TrainOptions) -> Stage:
    """Return the recipe of a stage, with the changes that the options make.

    Raises:
        TrainingError: there is no such preset or stage.
    """
    presets = (*PRESETS, SD_PRESET)
    if options.preset not in presets:
        raise TrainingError(f"there is no preset {options.preset!r}; there are {', '.join(presets)}")
    stages = SD_STAGES if options.preset == SD_PRESET else STAGES
    if options.stage not in stages:
        raise TrainingError(f"there is no stage {options.stage!r}; there are {', '.join(stages)}")
    given = {name: getattr(options, name) for name in ("steps", "batch", "crop", "lr")}
    return dataclasses.replace(stages[options.stage], **{k: v for k, v in given.items() if v is not None})


def check_options(options: TrainOptions, recipe: Stage) -> None:
    """Check what only the stage or this machine can tell.

    Raises:
        TrainingError: a setting, the precision, the crop or the device does not fit.
    """
    known = [p.name for p in inspect.signature(recipe.build).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(options.settings) - set(known)):
        raise TrainingError(
            f"stage {recipe.name} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}"
        )
    check_precision(options.precision)
    if recipe.crop % 64 or recipe.crop < 64:
        raise TrainingError(f"the side of a crop must be a multiple of 64 pixels, not {recipe.crop}")
    choose_device(options.device)


def _same_stage(options: TrainOptions) -> Checkpoint | None:
    """Return the initial checkpoint that belongs to the stage itself, if there is one."""
    return next((c for c in map(read_initial, options.init) if c.stage == options.stage), None)


def _with_end(options: TrainOptions, recipe: Stage, start: Checkpoint | None, *, resume: bool) -> Stage:
    """Return the recipe with the last step of the stage that is continued."""
    if start is None:
        return recipe
    if start.total and options.steps is None:
        recipe = dataclasses.replace(recipe, steps=start.total)
    if not resume and options.minutes is None and start.step >= recipe.steps:
        raise TrainingError(
            f"stage {recipe.name} is over at step {start.step} of {recipe.steps}: give --steps for more"
        )
    return recipe


def _trained(options: TrainOptions, recipe: Stage) -> tuple[str, ...]:
    """Return the prefixes of what is trained; a given distortion-oriented encoder stays as it is."""
    given = (
        "triple_encoder.distortion" if recipe.name == "pixel" and options.sd.distortion is not None else None
    )
    return tuple(prefix for prefix in recipe.trains if prefix != given)


def _settings(options: TrainOptions, recipe: Stage) -> dict[str, Any]:
    """Return the arguments of the stage's module beside the model."""
    settings = {**recipe.settings, **options.settings}
    if options.preset == SD_PRESET:
        # The first stage does not use LPIPS, but later ones would miss its weights after hours of training.
        lpips = load_lpips(options.sd)
        settings |= {} if recipe.name == "pixel" else {"lpips": lpips}
    return settings


def _judgement(options: TrainOptions, device: torch.device) -> Judgement:
    """Say what validation looks at."""
    if options.preset != SD_PRESET:
        return Judgement(crop=options.validate_crop)
    crop = options.validate_crop or SD_VALIDATE_CROP
    return Judgement(SD_RATES, crop, by_level=True, perceptual=find_alex(options.sd.metric_weights, device))


def _latents(options: TrainOptions, recipe: Stage) -> LatentStore:
    if len(options.data) != 1:
        raise TrainingError(
            f"stage {recipe.name} learns from one folder of latents (sprdiff data latents): give --data"
        )
    return LatentStore.open(_paths(options.data)[0], recipe.latents)


@contextmanager
def _data(
    options: TrainOptions, recipe: Stage, latents: LatentStore | None, accelerator: Accelerator
) -> Iterator[tuple[Store, PhotoStore | None]]:
    """Open the samples of a stage and its photographs for validation, and close them in the end."""
    kind = "shards" if options.preset == SD_PRESET and latents is None else "photos"
    cache = options.cache or options.out / kind

    def opened(sources: list[Path]) -> PhotoStore:
        with accelerator.main_process_first():  # the others find decoded photographs
            return open_store(sources, cache, list(options.exclude))

    valid = opened(list(options.valid)) if options.valid else None
    if latents is not None:
        yield latents, valid
    elif kind == "photos":
        store = opened(_paths(options.data))
        yield holdout(store) if valid is None else (store, valid)
    else:
        crops = ShardCrops(
            list(map(str, options.data)),
            ShardCache(cache),
            recipe.crop,
            options.seed,
            world=accelerator.num_processes,
            exclude=options.exclude,
            hold_out=valid is None,
            workers=options.sd.workers or default_workers(),
            device=accelerator.device,
        )
        try:
            yield crops, crops.validation(VALIDATION_PHOTOS) if valid is None else valid
        finally:
            crops.close()


def _paths(sources: Sequence[str | Path]) -> list[Path]:
    return [Path(source) for source in sources]
