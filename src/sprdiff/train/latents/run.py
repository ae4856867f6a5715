"""``sprdiff data latents``: photographs become the folder that the stages ``vae`` and ``flow`` learn from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor

from ...common.files import describe, write_atomic
from ...common.messages import reason
from ...common.structs import from_json, to_json
from ...errors import OutputError, TrainingError
from ...models.sprdiff import SPRDiff
from .. import checkpoints
from ..checkpoints import part_of
from ..data.photos import PhotoStore, open_store
from ..initial import build, read_initial
from ..options import LatentsOptions
from ..precision import check_precision, choose_device
from ..recipes import CODEC_PARTS
from ..stages.codec import receive
from .making import CHUNK, Codec, encode_latents, make_latents
from .store import SIDE

INDEX = "latents.json"
ENCODER = "triple_encoder.vae"

Advance = Callable[[int, int], None]


class LatentsIndex(Struct, frozen=True, forbid_unknown_fields=True):
    """What a folder was made with; only a run with the same may continue it.

    Attributes:
        codec, photographs: digests of the codec's weights, and of the photographs' names and sizes.
    """

    preset: str
    count: int
    seed: int
    codec: str
    photographs: str
    precision: str


@dataclass(frozen=True)
class LatentsResult:
    """What a folder holds after a run.

    Attributes:
        crops: how many crops it holds.
        vae: whether it holds the VAE's latent of each.
        precision: the precision in which they were coded.
    """

    crops: int
    vae: bool
    precision: str


def run_latents(options: LatentsOptions, advance: Advance = lambda done, total: None) -> LatentsResult:
    """Code crops of photographs, and add the VAE's latent if a checkpoint has its encoder; continue an older
    run.

    Args:
        advance: a function that is called with the number of crops that are done, and of all.

    Raises:
        TrainingError: a checkpoint or photographs are missing, or the folder was made with others.
        OutputError: a file cannot be written.
    """
    check_precision(options.precision, ("fp32", "bf16"))
    if options.threads:
        torch.set_num_threads(options.threads)
    device, out = choose_device(options.device).type, options.out
    model = build(options.preset)
    found = {
        part for path in options.init for part in checkpoints.load_networks(model, read_initial(path), path)
    }
    needed = {ENCODER} if options.vae_only else set(CODEC_PARTS)
    if missing := sorted(needed - found):
        raise TrainingError(f"the latents need a trained {missing[0]}: give --init")
    model.eval().requires_grad_(False)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    index = _index(out) if options.vae_only else _code(options, model, device, advance)
    if vae := ENCODER in found:
        with _autocast(device, index.precision):
            _follow(encode_latents(model, out, device), index.count, advance)
    return LatentsResult(index.count, vae, index.precision)


def _code(options: LatentsOptions, model: SPRDiff, device: str, advance: Advance) -> LatentsIndex:
    """Code the crops, and return the folder's index."""
    sources, cache = [Path(source) for source in options.data], options.cache or options.out / "photos"
    store, codec = open_store(sources, cache, list(options.exclude)), codec_of(model)
    wanted: dict[str, Any] = {
        "preset": options.preset,
        "count": options.count,
        "seed": options.seed,
        **_made_with(model, store),
    }
    index = _begin(options.out, wanted)
    if index is None:
        index = LatentsIndex(**wanted, precision=_faster(codec, options.precision, device))
        _write(options.out, index)
    with _autocast(device, index.precision):
        crops = make_latents(codec, store, options.out, options.count, options.seed, device)
        _follow(crops, options.count, advance)
    return index


def codec_of(model: SPRDiff) -> Codec:
    """Return a function from images and levels to x̃, f16 and f32, with the encoders that the codec was
    trained with."""

    def code(x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coarse, f16, f32, _ = receive(model, x, level)
        return coarse, f16, f32

    return code


def _made_with(model: SPRDiff, store: PhotoStore) -> dict[str, str]:
    """Return digests of the codec's weights and of the photographs' names and sizes."""
    weights, photos = hashlib.sha256(), hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if part_of(name) in CODEC_PARTS:
            weights.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    photos.update(json.dumps([*zip(store.names, store.shapes.tolist(), strict=True)]).encode())
    return {"codec": weights.hexdigest(), "photographs": photos.hexdigest()}


def _begin(out: Path, wanted: dict[str, Any]) -> LatentsIndex | None:
    """Return the index of a folder that was made with what is wanted; None for an empty folder."""
    if not (out / INDEX).exists():
        if (out / "level.npy").exists():
            raise TrainingError(f"{out} holds latents but no {INDEX}: give an empty folder")
        return None
    index = _index(out)
    if different := [name for name, value in wanted.items() if getattr(index, name) != value]:
        raise TrainingError(f"{out} was made with another {different[0]}: give an empty folder")
    return index


def _index(out: Path) -> LatentsIndex:
    message = f"{out} is not a folder of latents"
    try:
        data = (out / INDEX).read_bytes()
    except OSError as error:
        raise TrainingError(f"{message}: {reason(error)}") from error
    return from_json(data, LatentsIndex, TrainingError, message)


def _write(out: Path, index: LatentsIndex) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {describe(error)}") from error
    write_atomic(out / INDEX, to_json(index, indent=1), force=True)


def _autocast(device: str, precision: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def _faster(codec: Codec, precision: str, device: str) -> str:
    """Return the given precision; for ``auto`` measure which one codes a few crops faster."""
    if precision != "auto":
        return precision
    x, level = torch.rand(CHUNK, 3, SIDE, SIDE, device=device), torch.full((CHUNK,), 128.0, device=device)
    took = {}
    for name in ("fp32", "bf16"):
        with _autocast(device, name):
            for _ in range(2):  # the first turn warms up
                began = time.perf_counter()
                float(codec(x, level)[0].float().sum())
        took[name] = time.perf_counter() - began
    return min(took, key=lambda name: took[name])


def _follow(progress: Iterator[int], count: int, advance: Advance) -> None:
    for done in progress:
        advance(done, count)
