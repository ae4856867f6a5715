"""Training (extra ``train``): ``run_stage`` and ``run_export`` are what the command line calls."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..errors import TrainingError
from ..models.config import PRESETS
from ..models.sprdiff import SPRDiff
from ..models.stored import entropy_arrays, load_folder
from ..runtime.weights import read_arrays
from ..sd import pretrained
from ..sd.config import SDConfig
from ..sd.folder import is_trained
from ..sd.precision import PRECISIONS
from . import checkpoints
from .batches import Store
from .checkpoints import PARTS
from .data.photos import CropSampler, PhotoStore, holdout, open_store
from .data.remote import Cache
from .data.shards import ShardCrops
from .export.folder import refit_tables, write_folder
from .latents import LatentStore
from .loop import Options, Trainer
from .recipes import STAGES, Stage
from .report import VALIDATION_PHOTOS, Report
from .sd.options import (
    SDOptions,
    build_model,
    check_config,
    default_workers,
    find_alex,
    load_lpips,
    load_trained,
)
from .sd.recipes import RATES as SD_RATES
from .sd.recipes import SD_PARTS, SD_STAGES
from .validate import Judgement

SD_PRESET = SDConfig.preset
SD_VALIDATE_CROP = 512
"""Side of what validation looks at of preset `sd`, whose networks need gigabytes for a whole photograph."""
Source = str | Path


def run_stage(
    stage: str,
    *,
    preset: str,
    data: Sequence[Source],
    out: Path,
    resume: bool = False,
    init: list[Path] | None = None,
    valid: list[Path] | None = None,
    steps: int | None = None,
    batch: int | None = None,
    crop: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    exclude: list[str] | None = None,
    device: str = "auto",
    cache: Path | None = None,
    validate_every: int = 1000,
    validate_crop: int | None = None,
    save_every: float = 180.0,
    accumulate: int = 1,
    settings: Mapping[str, Any] | None = None,
    precision: str = "auto",
    minutes: float | None = None,
    decay: bool = False,
    compile: bool = False,
    features: Path | None = None,
    sd: SDOptions | None = None,
) -> None:
    """Run one stage of training.

    Args:
        data: folders or ``.tar`` shards of photographs; the one folder of latents of stages that learn
            from them; of preset `sd` shards only, remote ones too.
        valid: folders or ``.tar`` shards for validation; a 64th of `data` is held out if absent.
        out: folder of checkpoints, logs and TensorBoard files.
        resume: continue the stage's own checkpoint in ``out``, exactly.
        init: checkpoints, or weights folders, whose EMA weights the networks start from. One of the same stage is
            gone on with, at its step; without `steps` to the end that it was made for.
        settings: arguments of the stage's module that differ from its recipe, by name.
        precision: of the networks: fp32, tf32, fp16, bf16, or auto: of `tiny` the faster of fp32 and bf16, of `sd`
            the fastest that `sd.precision` allows.
        accumulate: in how many parts the gradient of a batch is computed, one after another.
        validate_crop: side of the middle of photographs that validation looks at; None: whole ones, of `sd` 512.
        minutes, decay: this leg ends after so many minutes, its learning rate falling to zero if it is the last.
        compile: whether torch compiles the stage (worth it on a GPU).
        features: weights of the network that measures the samples of validation (SqueezeNet; measuring only).
        save_every: seconds between checkpoints.
        sd: what preset `sd` needs.

    Raises:
        TrainingError: anything wrong with the arguments, the data or a checkpoint.
        WeightsError: a pretrained part of preset `sd` cannot be had.
    """
    recipe = _recipe(preset, stage, {"steps": steps, "batch": batch, "crop": crop, "lr": lr})
    _check(recipe, device, precision, settings or {})
    sd = sd or SDOptions()
    own = out / f"{stage}.safetensors"
    resume = resume and own.exists()
    start = checkpoints.load(own) if resume else _same_stage(stage, init or [])
    if start is not None and start.total and steps is None:
        recipe = dataclasses.replace(recipe, steps=start.total)
    if start is not None and not resume and minutes is None and start.step >= recipe.steps:
        raise TrainingError(f"stage {stage} is over at step {start.step} of {recipe.steps}: give --steps for more")
    if threads:
        torch.set_num_threads(threads)
    accelerator = Accelerator(cpu=device == "cpu")
    if minutes is not None and accelerator.num_processes > 1:
        raise TrainingError("several processes would not stop at the same step: give --steps in place of --minutes")
    torch.manual_seed(seed)
    latents = _latents(data, recipe) if recipe.latents else None
    model = build(preset, sd)
    _load(model, recipe, init or [], resume=resume)
    extra = {**recipe.settings, **(settings or {}), **_extras(recipe, preset, sd)}
    photos: Store
    held: PhotoStore | None = None
    if latents is not None:
        photos = latents
        held = open_store(valid, cache or out / "photos", exclude or []) if valid else None
    elif preset == SD_PRESET:
        photos, held = _shards(recipe, data, valid, exclude or [], cache or out / "shards", seed, accelerator, sd)
    else:
        photos, held = _photos([Path(d) for d in data], valid, exclude or [], cache or out / "photos", accelerator)
    module = recipe.build(model, _trained(recipe, stage, sd), **extra)
    options = Options(out, seed, save_every, validate_every, precision=precision, accumulate=accumulate,
                      minutes=minutes, decay=decay, compile=compile, adam8bit=sd.adam8bit, shard=sd.shard)  # fmt: skip
    trainer = Trainer(recipe, module, photos, held, options, accelerator)
    if resume:
        trainer.resume()
    elif start is not None:
        trainer.load_extras(start)
        trainer.step = trainer.first = start.step
    judged = _judgement(preset, validate_crop, sd, accelerator.device)
    report = Report(out, stage, recipe.steps, active=accelerator.is_main_process, features=features, judged=judged)
    try:
        trainer.run(report)
    finally:
        report.close()
        if isinstance(photos, ShardCrops):
            photos.close()


def run_export(
    init: list[Path],
    out: Path,
    *,
    data: Sequence[Source] | None = None,
    preset: str = "tiny",
    card: dict[str, Any] | None = None,
    exclude: list[str] | None = None,
    cache: Path | None = None,
    crops: int = 1024,
    crop: int | None = None,
    sd: SDOptions | None = None,
) -> None:
    """Write the weights folder ``out`` from the EMA weights of checkpoints that together hold every network.

    Args:
        init: checkpoints; of a network that several hold, the last one counts.
        data: photographs that the probability tables are refitted to; without them the tables stay Gaussian.
        card: figures for the manifest. MODEL_CARD.md and LICENSE-weights of a folder that is replaced are kept.
        cache: folder of decoded photographs, or of fetched shards; a temporary one if absent.
        crops, crop: how many crops the tables are fitted to, and their side in pixels (256; 512 of preset `sd`).
        sd: what preset `sd` needs; its folder holds only what was trained.

    Raises:
        TrainingError: a network is missing, does not fit or holds what is no number; no data; a full disk.
        WeightsError: a pretrained part of preset `sd` cannot be had.
    """
    model = build(preset, sd)
    found = {part for path in init for part in checkpoints.load_networks(model, read_init(path), path)}
    # The pretrained part of `tiny` came with the package that `build` took it from.
    if missing := set(SD_PARTS if preset == SD_PRESET else PARTS) - found - {"triple_encoder.semantic"}:
        raise TrainingError(f"the export needs trained {', '.join(sorted(missing))}: give --init")
    if not checkpoints.all_finite(checkpoints.own_state(model)):
        raise TrainingError("some weights are not numbers: a checkpoint of a run that diverged")
    arrays = entropy_arrays(model.eval().latent_codec)
    if data:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            place = cache or Path(scratch)
            if preset == SD_PRESET:
                sampler = ShardCrops([str(d) for d in data], Cache(place), crop or 512, seed=0, exclude=exclude or [])
                device = "cuda" if torch.cuda.is_available() else "cpu"
                refit_tables(arrays, model.to(device), sampler, crops, device)
                sampler.close()
            else:
                store = open_store([Path(d) for d in data], place, exclude or [])
                refit_tables(arrays, model, CropSampler(store, crop or 256, seed=0), crops)
    if preset == SD_PRESET:
        pretrained.save(out, model, arrays, card or {})  # type: ignore[arg-type]
    else:
        write_folder(out, model, arrays, card or {})


def build(preset: str, sd: SDOptions | None = None) -> SPRDiff:
    """The model of a preset, pretrained parts loaded; of `sd` one with the same attributes and methods."""
    if preset == SD_PRESET:
        return build_model(sd or SDOptions())  # type: ignore[return-value]
    if preset not in PRESETS:
        raise TrainingError(f"no preset {preset!r}; there are {', '.join((*PRESETS, SD_PRESET))}")
    model = SPRDiff(PRESETS[preset])
    if model.triple_encoder.semantic is not None:
        model.triple_encoder.semantic.load_package()
    return model


def _extras(recipe: Stage, preset: str, sd: SDOptions) -> dict[str, Any]:
    """What a stage is built with beside the model."""
    if preset != SD_PRESET:
        return {}
    # The first stage asks for the weights of LPIPS too: its successors would miss them hours later.
    lpips = load_lpips(sd)
    return {} if recipe.name == "pixel" else {"lpips": lpips}


def _judgement(preset: str, crop: int | None, sd: SDOptions, device: torch.device) -> Judgement:
    """What validation looks at."""
    if preset != SD_PRESET:
        return Judgement(crop=crop)
    return Judgement(SD_RATES, crop or SD_VALIDATE_CROP, by_level=True, perceptual=find_alex(sd.metric_weights, device))


def _trained(recipe: Stage, stage: str, sd: SDOptions) -> tuple[str, ...]:
    """Prefixes of what is trained: a distortion-oriented encoder that was given stays as it is."""
    given = "triple_encoder.distortion" if stage == "pixel" and sd.distortion is not None else None
    return tuple(prefix for prefix in recipe.trains if prefix != given)


def _latents(data: Sequence[Source], recipe: Stage) -> LatentStore:
    if len(data) != 1:
        raise TrainingError(
            f"stage {recipe.name} learns from one folder of latents (sprdiff data latents): give --data"
        )
    return LatentStore.open(Path(data[0]), recipe.latents)


def _photos(
    data: list[Path], valid: list[Path] | None, exclude: list[str], cache: Path, accelerator: Accelerator
) -> tuple[PhotoStore, PhotoStore]:
    """Photographs for training and for validation, decoded by the first process."""
    with accelerator.main_process_first():
        store = open_store(data, cache, exclude)
        held = open_store(valid, cache, exclude) if valid else None
    return (store, held) if held is not None else holdout(store)


def _shards(
    recipe: Stage, data: Sequence[Source], valid: list[Path] | None, exclude: list[str], cache: Path, seed: int,
    accelerator: Accelerator, sd: SDOptions,
) -> tuple[ShardCrops, PhotoStore]:  # fmt: skip
    """The same of shards, which each process opens for itself."""
    sources, world = [str(d) for d in data], accelerator.num_processes
    crops = ShardCrops(sources, Cache(cache), recipe.crop, seed, world=world, exclude=exclude, hold_out=not valid,
                       workers=sd.workers or default_workers(), device=accelerator.device)  # fmt: skip
    if not valid:
        return crops, crops.validation(VALIDATION_PHOTOS)
    with accelerator.main_process_first():
        return crops, open_store(valid, cache, exclude)


def _recipe(preset: str, name: str, changes: dict[str, float | int | None]) -> Stage:
    if preset not in (*PRESETS, SD_PRESET):
        raise TrainingError(f"no preset {preset!r}; there are {', '.join((*PRESETS, SD_PRESET))}")
    stages = SD_STAGES if preset == SD_PRESET else STAGES
    if name not in stages:
        raise TrainingError(f"no stage {name!r}; there are {', '.join(stages)}")
    given = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(stages[name], **given)  # type: ignore[arg-type]


def _check(recipe: Stage, device: str, precision: str, settings: Mapping[str, Any]) -> None:
    known = [p.name for p in inspect.signature(recipe.build).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(settings) - set(known)):
        raise TrainingError(f"stage {recipe.name} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    if precision not in ("auto", *PRECISIONS):
        raise TrainingError(f"the precision must be one of auto, {', '.join(PRECISIONS)}, not {precision!r}")
    if recipe.crop % 64 or recipe.crop < 64:
        raise TrainingError(f"the side of a crop must be a multiple of 64 pixels, not {recipe.crop}")
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise TrainingError(f"there is no device {device!r} here")


def _same_stage(stage: str, init: list[Path]) -> checkpoints.Checkpoint | None:
    return next((c for c in map(read_init, init) if c.stage == stage), None)


def _load(model: SPRDiff, recipe: Stage, init: list[Path], *, resume: bool) -> None:
    found: set[str] = set()
    for path in init:
        checkpoint = read_init(path)
        if isinstance(checkpoint.config, SDConfig):
            check_config(model.config, checkpoint, path)
        found.update(checkpoints.load_networks(model, checkpoint, path))
    if (missing := set(recipe.needs) - found) and not resume:
        raise TrainingError(f"stage {recipe.name} starts from trained {', '.join(sorted(missing))}: give --init")


def read_init(path: Path) -> checkpoints.Checkpoint:
    """A checkpoint, or a weights folder as one: the shipped weights are what the next leg starts from."""
    if not path.is_dir():
        return checkpoints.load(path)
    if is_trained(path):
        return load_trained(path)
    model = load_folder(path, read_arrays)
    tensors = {f"ema.{name}": value for name, value in model.state_dict().items()}
    return checkpoints.Checkpoint("export", 0, model.config, PARTS, tensors)
