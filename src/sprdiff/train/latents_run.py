"""`sprdiff data latents`: photographs become the folder of latents that the stages ``vae`` and ``flow`` learn from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.files import describe, write_atomic
from ..errors import OutputError, TrainingError
from ..models.sprdiff import SPRDiff
from . import checkpoints
from .checkpoints import part_of
from .data.photos import PhotoStore, open_store
from .latents import CHUNK, SIDE, Codec, encode_latents, make_latents
from .recipes import CODEC_PARTS
from .run import build, read_init
from .stages import receive

PRECISIONS = ("auto", "fp32", "bf16")
INDEX = "latents.json"
"""What a folder was made with: whoever goes on in it must have the same."""
ENCODER = "triple_encoder.vae"

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Made:
    """What a folder holds after a run: how many crops, whether the VAE's latent too, and in which precision."""

    crops: int
    vae: bool
    precision: str


def run_latents(
    out: Path, *, init: Sequence[Path], data: Sequence[Path] = (), preset: str = "tiny", count: int = 3000,
    seed: int = 0, vae_only: bool = False, exclude: Sequence[str] = (), cache: Path | None = None,
    device: str = "auto", threads: int | None = None, precision: str = "auto",
    advance: Advance = lambda done, total: None,
) -> Made:  # fmt: skip
    """Code crops of photographs, and add the VAE's latent where a checkpoint brings its encoder; resumes.

    Args:
        init: checkpoints of the codec, and of the VAE once there is one.
        vae_only: leave what the codec made as it is, and compute the VAE's latent again.
        advance: called with (crops done, of so many).

    Raises:
        TrainingError: a checkpoint or the photographs are missing, or the folder was made with others.
        OutputError: the disk refused a file.
    """
    if precision not in PRECISIONS:
        raise TrainingError(f"the precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if threads:
        torch.set_num_threads(threads)
    place = _device(device)
    model = build(preset)
    found = {part for path in init for part in checkpoints.load_networks(model, read_init(path), path)}
    needed = {ENCODER} if vae_only else set(CODEC_PARTS)
    if missing := sorted(needed - found):
        raise TrainingError(f"the latents need a trained {missing[0]}: give --init")
    model.eval().requires_grad_(False).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if vae_only:
        index = _index(out)
    else:
        store = open_store(list(data), cache or out / "photos", list(exclude))
        index = _begin(out, {"preset": preset, "count": count, "seed": seed, **_made_with(model, store)})
        codec = codec_of(model)
        index["precision"] = index.get("precision") or _faster(codec, precision, place)
        _write(out, index)
        with _autocast(place, index["precision"]):
            _follow(make_latents(codec, store, out, count, seed, place), count, advance)
    if vae := ENCODER in found:
        with _autocast(place, index["precision"]):
            _follow(encode_latents(model, out, place), index["count"], advance)
    return Made(index["count"], vae, index["precision"])


def codec_of(model: SPRDiff) -> Codec:
    """Image and level -> x̃, f16, f32, by the encoders that the codec was trained with."""

    def code(x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coarse, f16, f32, _ = receive(model, x, level)
        return coarse, f16, f32

    return code


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise TrainingError(f"there is no device {name!r} here")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _made_with(model: SPRDiff, store: PhotoStore) -> dict[str, str]:
    """Digests of the codec's weights and of the photographs' names and sizes."""
    weights, photos = hashlib.sha256(), hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if part_of(name) in CODEC_PARTS:
            weights.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    photos.update(json.dumps([*zip(store.names, store.shapes.tolist(), strict=True)]).encode())
    return {"codec": weights.hexdigest(), "photographs": photos.hexdigest()}


def _begin(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    if not (out / INDEX).exists():
        if (out / "level.npy").exists():
            raise TrainingError(f"{out}: holds latents but no {INDEX}: give an empty folder")
        return wanted
    index = _index(out)
    if different := [name for name, value in wanted.items() if index.get(name) != value]:
        raise TrainingError(f"{out}: was made with another {different[0]}: give an empty folder")
    return index


def _index(out: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((out / INDEX).read_text("utf-8"))
        int(index["count"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{out}: not a folder of latents ({error})") from error
    return index


def _write(out: Path, index: dict[str, Any]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {describe(error)}") from error
    write_atomic(out / INDEX, (json.dumps(index, indent=1) + "\n").encode(), force=True)


def _autocast(device: str, precision: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def _faster(codec: Codec, precision: str, device: str) -> str:
    """The precision to code in: what was asked for, or whichever takes less time for a few crops."""
    if precision != "auto":
        return precision
    x, level = torch.rand(CHUNK, 3, SIDE, SIDE, device=device), torch.full((CHUNK,), 128.0, device=device)
    took = {}
    for name in ("fp32", "bf16"):
        with _autocast(device, name):
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                float(codec(x, level)[0].float().sum())
        took[name] = time.perf_counter() - began
    return min(took, key=lambda name: took[name])


def _follow(progress: Iterator[int], count: int, advance: Advance) -> None:
    for done in progress:
        advance(done, count)
