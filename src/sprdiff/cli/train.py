"""The command ``sprdiff train`` (it needs the extra: train; preset sd also: sd)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import TrainingError
from .options import Threads, between

OF_SD = {"base", "semantic", "base_revision", "semantic_revision", "distortion", "metric_weights", "lpips",
         "grad_checkpointing", "adam8bit", "fsdp", "workers", "variant", "lora_rank", "lora_alpha",
         "prediction"}  # fmt: skip
"""Options that only preset sd has."""
SD = "Preset sd"


def train(
    stage: Annotated[str, typer.Argument(help="Stage of training, or export.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of checkpoints and logs.")],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Folder or .tar shard; may repeat; preset sd: shards anywhere.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Size of the model: tiny or sd.")] = "tiny",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the stage stopped.")] = False,
    init: Annotated[list[Path] | None, typer.Option("--init", help="Weights to start from; may repeat.")] = None,
    valid: Annotated[
        list[Path] | None, typer.Option("--valid", help="Folder or .tar of photographs for validation.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Leave out names with this prefix.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Crops per step.")] = None,
    crop: Annotated[int | None, typer.Option("--crop", min=64, help="Side of a crop in pixels.")] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", callback=between(0, math.inf, open_low=True), help="Learning rate."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    threads: Threads = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for decoded or fetched photographs.")] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="auto (the fastest that is right), fp32, tf32, fp16 or bf16.")
    ] = "auto",
    accumulate: Annotated[
        int, typer.Option("--accumulate", min=1, help="Compute the batch in so many parts: less memory.")
    ] = 1,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", callback=between(0, math.inf, open_low=True), help="How long this leg lasts."),
    ] = None,
    decay: Annotated[bool, typer.Option("--decay", help="With --minutes: this leg ends the stage.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the stage first (on a GPU).")] = False,
    validate_every: Annotated[int, typer.Option("--validate-every", min=1, help="Steps between validations.")] = 1000,
    validate_crop: Annotated[
        int | None, typer.Option("--validate-crop", min=64, help="Side of what validation sees of a photograph.")
    ] = None,
    save_every: Annotated[float, typer.Option("--save-every", min=0, help="Seconds between checkpoints.")] = 180.0,
    features: Annotated[
        Path | None, typer.Option("--features", help="SqueezeNet 1.1, for the figures of validation's samples.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another value of a stage's setting.")
    ] = None,
    card: Annotated[Path | None, typer.Option("--card", help="export: JSON file of figures to ship.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Stable Diffusion 1.x or 2.x: folder or id.", rich_help_panel=SD)
    ] = None,
    semantic: Annotated[
        str | None, typer.Option("--semantic", help="DINOv2: folder or id.", rich_help_panel=SD)
    ] = None,
    base_revision: Annotated[
        str | None, typer.Option("--base-revision", help="Commit of the hub.", rich_help_panel=SD)
    ] = None,
    semantic_revision: Annotated[
        str | None, typer.Option("--semantic-revision", help="Commit of the hub.", rich_help_panel=SD)
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Of the base's weights: fp16, say.", rich_help_panel=SD)
    ] = None,
    distortion: Annotated[
        Path | None,
        typer.Option("--distortion", help="ELIC's encoder, ours or CompressAI's: kept as is.", rich_help_panel=SD),
    ] = None,
    metric_weights: Annotated[
        Path | None, typer.Option("--metric-weights", metavar="DIR", help="Weights of LPIPS.", rich_help_panel=SD)
    ] = None,
    lpips: Annotated[
        bool, typer.Option("--lpips/--no-lpips", help="Train on LPIPS, or go without.", rich_help_panel=SD)
    ] = True,
    grad_checkpointing: Annotated[
        bool, typer.Option("--grad-checkpointing", help="A third slower, far less memory.", rich_help_panel=SD)
    ] = False,
    adam8bit: Annotated[
        bool, typer.Option("--adam8bit", help="Optimiser of 8 bits (bitsandbytes).", rich_help_panel=SD)
    ] = False,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="Spread the model over the processes of torchrun.", rich_help_panel=SD)
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Threads that decode photographs.", rich_help_panel=SD),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option("--lora-rank", min=1, help="Rank of the UNet's adapters (32).", rich_help_panel=SD)
    ] = None,
    lora_alpha: Annotated[
        int | None,
        typer.Option("--lora-alpha", min=1, help="Their scale times the rank (8: a scale of 1/4).", rich_help_panel=SD),
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option("--prediction", help="What the UNet's output is taken for: clean or base.", rich_help_panel=SD),
    ] = None,
) -> int:
    """Train one stage of a preset (needs the extra: train)."""
    options = dict(locals())
    special = {name: options.pop(name) for name in OF_SD}
    try:
        from ..train import SDOptions, read_card, run_export, run_stage
    except ImportError as error:
        if (error.name or "").startswith("sprdiff"):
            raise
        raise TrainingError(f"training needs {error.name}: pip install 'sprdiff[train]'") from error
    given_sizes = {name: special.pop(name) for name in ("lora_rank", "lora_alpha", "prediction")}
    sd = SDOptions(shard=special.pop("fsdp"), **special).with_config(given_sizes)
    if preset != "sd" and sd != SDOptions(workers=workers):
        raise TrainingError("--base, --semantic and the other options of preset sd need --preset sd")
    if stage == "export":
        figures = None if card is None else read_card(card)
        run_export(init or [], out, data=data, preset=preset, exclude=exclude, cache=cache, card=figures, sd=sd)
        return 0
    del options["card"]
    given: dict[str, Any] = {k: v for k, v in options.items() if v is not None and k != "stage"}
    given["settings"] = dict(map(_setting, settings or []))
    run_stage(stage, **{"data": [], **given}, sd=sd)
    return 0


def _setting(text: str) -> tuple[str, Any]:
    """``name=value`` -> the name, and the value as JSON reads it, or as text."""
    name, found, value = text.partition("=")
    if not found:
        raise TrainingError(f"--set takes NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
