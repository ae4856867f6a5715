"""Stage ``export``: a trained model becomes a weights folder (``models/stored.py`` reads it back).

checkpoint ─► entropy.npz (integer networks, tables) · encoder.npz, decoder.npz (fp16) · 4 graphs · manifest · card
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...common.files import replace_folder
from ...errors import TrainingError
from ...format.entropy import EntropyModel
from ...format.rangecoder import SymbolCounter
from ...format.tables import fit_tables
from ...models.config import EXACT, LEVELS
from ...models.first.denoiser import NOISE_SCALE
from ...models.sprdiff import SPRDiff
from ...models.stored import Arrays
from ...runtime.weights import FORMAT, defaults, identity
from ..data.photos import CropSampler
from ..data.shards import ShardCrops
from .graphs import export_graphs

HALOS = ("encoder", "decoder", "coarse", "denoise", "vae_decode")
KEPT = ("MODEL_CARD.md", "LICENSE-weights")
FILES = ("manifest.json", "entropy.npz", "encoder.npz", "decoder.npz", "encoder.onnx", "coarse.onnx", "denoise.onnx",
         "vae_decode.onnx", *KEPT)  # fmt: skip
"""All that a weights folder may hold: an export replaces the folder and must not take other files with it."""


@torch.no_grad()
def refit_tables(
    arrays: Arrays, model: SPRDiff, sampler: CropSampler | ShardCrops, crops: int = 256, device: str = "cpu"
) -> None:
    """Replace the Gaussian tables by ones fitted to the residuals of training crops at all levels, in place."""
    entropy = EntropyModel.from_arrays(arrays)
    counter = SymbolCounter(entropy.tables)
    for start in range(0, crops, 8):
        x = sampler.batch(2 * 10**9 + start, 0, 8).to(device)
        y, z = (latent.cpu() for latent in model.latent_codec.analyse(model.triple_encoder(x)))
        for i in range(8):
            level = min((start + i) * LEVELS // crops, LEVELS - 1)
            entropy.count(counter, y[i].numpy(), z[i].numpy(), level)
    base = arrays["tables.radius"], arrays["tables.counts"]
    arrays["tables.radius"], arrays["tables.counts"] = fit_tables(counter.histograms, base)


def receptive_field(model: SPRDiff, part: str) -> int:
    """One-sided receptive field in pixels, measured with an impulse: the halo of tiles.

    Of ``encoder``, ``decoder`` (all from ŷ to pixels), or one graph of the receiver: ``coarse``, ``denoise``,
    ``vae_decode``.

    The largest distance from a changed input at which any output changes by more than 1e-7 of the change's peak.
    """
    config = model.config
    with torch.no_grad():
        if part == "encoder":
            base = torch.rand(1, 3, 64, 1088, generator=torch.Generator().manual_seed(0))
            changed = base.clone()
            changed[..., 544] = 1 - changed[..., 544]
            outputs = [model.latent_codec.analyse(model.triple_encoder(x)) for x in (base, changed)]
            pairs = list(zip(*outputs, strict=True))
            return max(_reach(a, b, 544, 1088) for a, b in pairs)
        if part != "decoder":
            return _graph_reach(model, part)
        base = torch.randn(1, config.y_channels, 2, 35, generator=torch.Generator().manual_seed(0))
        changed = base.clone()
        changed[..., 17] += 4.0
        level = torch.full((1,), 128.0)
        images = []
        for y_hat in (base, changed):
            r = model.receive(y_hat, level)
            images.append((r.coarse, model.decode(r)))
        return max(_reach(a, b, 17 * 32 + 16, 35 * 32) for a, b in zip(*images, strict=True)) - 16


def _graph_reach(model: SPRDiff, part: str) -> int:
    config, ones = model.config, torch.ones(1)
    latent, condition = (config.vae_latent, 2), [(config.pixel_condition, 2), (config.semantic_condition, 1)]
    # Channels and positions per 32 pixels of each input that tiles cut.
    graphs: dict[str, tuple[list[tuple[int, int]], Callable[..., Sequence[Tensor]]]] = {
        "coarse": ([(config.y_channels, 1)], lambda y: model.receive(y, 128 * ones)),
        "denoise": ([latent, *condition], lambda z, *c: (model.denoiser(z, ones, *c),)),
        "vae_decode": ([latent, (3, 32), (config.noise, 8)], lambda *i: (model.decode_latent(*i),)),
    }
    inputs, run = graphs[part]
    random = torch.Generator().manual_seed(0)
    base = [torch.randn(1, channels, 2 * f, 35 * f, generator=random) for channels, f in inputs]
    changed = [x.clone() for x in base]
    for x, (_, f) in zip(changed, inputs, strict=True):
        x[..., 17 * f : 18 * f] += 4.0
    return max(_reach(a, b, 17 * 32 + 16, 35 * 32) for a, b in zip(run(*base), run(*changed), strict=True)) - 16


def _reach(a: Tensor, b: Tensor, centre: int, width: int) -> int:
    difference = (a - b).abs().amax((0, 1, 2))
    touched = torch.nonzero(difference > 1e-7 * difference.max()).flatten()
    cell = width // difference.numel()
    left, right = int(touched.min()) * cell, (int(touched.max()) + 1) * cell
    return max(centre - left, right - centre)


def write_folder(folder: Path, model: SPRDiff, arrays: Arrays, card: dict[str, Any]) -> dict[str, Any]:
    """Write the weights folder; returns the manifest.

    The folder is made beside its place and moved there whole: whatever goes wrong leaves the old one.

    Raises:
        TrainingError: the folder holds other files, the exporter changed a weight, or the disk refused a file.
    """
    folder = folder.resolve()
    partial = folder.with_name(folder.name + ".part")
    try:
        if folder.exists() and (foreign := {p.name for p in folder.iterdir()} - set(FILES)):
            raise TrainingError(f"{folder}: is no weights folder, it holds {sorted(foreign)[0]}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        manifest = _write_files(partial, model.eval(), arrays, card)
        for kept in KEPT:
            if (folder / kept).exists():
                shutil.copy(folder / kept, partial / kept)
        replace_folder(partial, folder)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _write_files(partial: Path, model: SPRDiff, arrays: Arrays, card: dict[str, Any]) -> dict[str, Any]:
    graphs = export_graphs(model, partial)
    encoder, decoder = graphs["encoder"], graphs["coarse"] | graphs["denoise"] | graphs["vae_decode"]
    needed = {name for name in model.state_dict() if not name.startswith(EXACT)}
    if lost := sorted(needed - set(encoder) - set(decoder)):
        raise TrainingError(f"the exporter folded {lost[0]} into a graph, where no hash sees it")
    np.savez_compressed(partial / "entropy.npz", **arrays)  # type: ignore[arg-type]
    np.savez(partial / "encoder.npz", **encoder)  # type: ignore[arg-type]
    np.savez(partial / "decoder.npz", **decoder)  # type: ignore[arg-type]
    manifest = {
        "format": FORMAT,
        "preset": model.config.preset,
        "preset_id": model.config.preset_id,
        **identity(arrays, decoder, encoder),
        **defaults(model.config.lambda_range),
        "noise_scale": NOISE_SCALE,
        "halo": {part: math.ceil(receptive_field(model, part) / 64) * 64 for part in HALOS},
        # The runtime fills the graphs without the onnx package, so it has to be told what they want.
        "graphs": {name: sorted(weights) for name, weights in graphs.items()},
        "config": json.loads(model.config.to_json()),
        "card": card,
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def read_card(path: Path) -> dict[str, Any]:
    """The figures to ship, from a JSON file holding one object.

    Raises:
        TrainingError: it cannot be read or is something else.
    """
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(card, dict):
        raise TrainingError(f"{path}: must hold one JSON object")
    return card
