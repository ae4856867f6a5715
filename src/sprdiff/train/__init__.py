"""Training (extra ``train``): ``run_stage`` and ``run_export`` are what the command line calls."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..errors import TrainingError
from ..models.config import PRESETS
from ..models.sprdiff import SPRDiff
from . import checkpoints
from .checkpoints import PARTS
from .data import CropSampler, holdout, open_store
from .export import entropy_arrays, load_folder, read_card, refit_tables, write_folder
from .loop import Options, Trainer
from .recipes import STAGES, Stage
from .report import Report

__all__ = ["read_card", "run_export", "run_stage"]


def run_stage(
    stage: str,
    *,
    preset: str,
    data: list[Path],
    out: Path,
    resume: bool = False,
    init: list[Path] | None = None,
    valid: list[Path] | None = None,
    teacher: Path | None = None,
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
    save_every: float = 180.0,
) -> None:
    """Run one stage of training.

    Args:
        data: folders or ``.tar`` shards of photographs. valid: the same for validation; a 64th is held out if absent.
        out: folder of checkpoints, logs and TensorBoard files.
        resume: continue the stage's own checkpoint in ``out``, exactly.
        init: checkpoints, or weights folders, whose EMA weights the networks start from.
        teacher: Tiny Darknet weights (stages ``semantic`` and ``refine``).
        save_every: seconds between checkpoints.

    Raises:
        TrainingError: anything wrong with the arguments, the data or a checkpoint.
    """
    recipe = _recipe(stage, {"steps": steps, "batch": batch, "crop": crop, "lr": lr})
    _check(recipe, preset, teacher, device)
    resume = resume and (out / f"{stage}.safetensors").exists()
    if threads:
        torch.set_num_threads(threads)
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision="bf16" if torch.cuda.is_available() and device != "cpu" else "no"
    )
    torch.manual_seed(seed)
    model = SPRDiff(PRESETS[preset])
    _load(model, recipe, init or [], resume=resume)
    cache = cache or out / "photos"
    with accelerator.main_process_first():
        store = open_store(data, cache, exclude or [])
        held = open_store(valid, cache, exclude or []) if valid else None
    store, held = (store, held) if held is not None else holdout(store)
    extra = {"teacher": teacher} if recipe.teacher else {}
    module = recipe.build(model, recipe.trains, **extra)
    options = Options(out=out, seed=seed, validate_every=validate_every, save_every=save_every)
    trainer = Trainer(recipe, module, store, held, options, accelerator)
    if resume:
        trainer.resume()
    elif (start := _same_stage(stage, init or [])) is not None:
        trainer.load_extras(start)
    report = Report(out, stage, recipe.steps, active=accelerator.is_main_process)
    try:
        trainer.run(report)
    finally:
        report.close()


def run_export(
    init: list[Path],
    out: Path,
    *,
    data: list[Path] | None = None,
    preset: str = "tiny",
    card: dict[str, Any] | None = None,
    exclude: list[str] | None = None,
    cache: Path | None = None,
    crops: int = 1024,
    crop: int = 256,
) -> None:
    """Write the weights folder ``out`` from the EMA weights of checkpoints that together hold every network.

    Args:
        init: checkpoints; of a network that several hold, the last one counts.
        data: photographs that the probability tables are refitted to; without them the tables stay Gaussian.
        card: figures for the manifest. MODEL_CARD.md and LICENSE-weights of a folder that is replaced are kept.
        cache: folder of decoded photographs; a temporary one if absent.
        crops, crop: how many crops the tables are fitted to, and their side in pixels.

    Raises:
        TrainingError: a network is missing, does not fit or holds what is no number; no data; a full disk.
    """
    if preset not in PRESETS:
        raise TrainingError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    model = SPRDiff(PRESETS[preset])
    found = {part for path in init for part in checkpoints.load_networks(model, _read(path), path)}
    if missing := set(PARTS) - found:
        raise TrainingError(f"the export needs trained {', '.join(sorted(missing))}: give --init")
    if not checkpoints.all_finite(model.state_dict()):
        raise TrainingError("some weights are not numbers: a checkpoint of a run that diverged")
    arrays = entropy_arrays(model.eval().latent_codec)
    if data:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            store = open_store(data, cache or Path(scratch), exclude or [])
            refit_tables(arrays, model, CropSampler(store, crop, seed=0), crops)
    write_folder(out, model, arrays, card or {})


def _recipe(name: str, changes: dict[str, float | int | None]) -> Stage:
    if name not in STAGES:
        raise TrainingError(f"no stage {name!r}; there are {', '.join(STAGES)}")
    given = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(STAGES[name], **given)  # type: ignore[arg-type]


def _check(recipe: Stage, preset: str, teacher: Path | None, device: str) -> None:
    if preset not in PRESETS:
        raise TrainingError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    if recipe.teacher and teacher is None:
        raise TrainingError(f"stage {recipe.name} needs the weights of Tiny Darknet: give --teacher")
    if recipe.crop % 64 or recipe.crop < 64:
        raise TrainingError(f"the side of a crop must be a multiple of 64 pixels, not {recipe.crop}")
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise TrainingError(f"there is no device {device!r} here")


def _same_stage(stage: str, init: list[Path]) -> checkpoints.Checkpoint | None:
    return next((c for c in map(_read, init) if c.stage == stage and c.part("extra")), None)


def _load(model: SPRDiff, recipe: Stage, init: list[Path], *, resume: bool) -> None:
    found: set[str] = set()
    for path in init:
        found.update(checkpoints.load_networks(model, _read(path), path))
    if (missing := set(recipe.needs) - found) and not resume:
        raise TrainingError(f"stage {recipe.name} starts from trained {', '.join(sorted(missing))}: give --init")


def _read(path: Path) -> checkpoints.Checkpoint:
    """A checkpoint, or a weights folder as one: the shipped weights are what the next leg starts from."""
    if not path.is_dir():
        return checkpoints.load(path)
    model = load_folder(path)
    tensors = {f"ema.{name}": value for name, value in model.state_dict().items()}
    return checkpoints.Checkpoint("export", 0, model.config, PARTS, tensors)
