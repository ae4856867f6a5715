"""Stage ``export``: a trained model becomes a weights folder (``models/stored.py`` reads it back).

checkpoint ─► entropy.npz (integer networks, tables), encoder.npz, decoder.npz (`format.kernels`), graphs,
               manifest
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

from ...common.files import whole_folder
from ...errors import TrainingError
from ...format.constants import LEVELS
from ...format.entropy import EntropyModel
from ...format.kernels import packed
from ...format.rangecoder import SymbolCounter
from ...format.tables import fit_tables
from ...models.config import EXACT
from ...models.sprdiff import SPRDiff
from ...models.stored import Arrays
from ...runtime.weights import FORMAT, GENERATION, GRAPHS, SAMPLERS, defaults, identity
from ..data.photos import CropSampler
from ..data.shards import ShardCrops
from .graphs import (
    Branches,
    CoarseGraph,
    ConditionGraph,
    EncoderGraph,
    VAEDecodeGraph,
    export_graphs,
)

KEPT = ("MODEL_CARD.md", "LICENSE-weights")
HALF = ("flow.",)
"""Weights that stay half floats: a picture goes through them once for every evaluation, and as int8 they cost
0.1 dB of a sample, all others together 0.01 dB (Kodak, dev/LOG.md, 107)."""
_ARRAYS = ("manifest.json", "entropy.npz", "encoder.npz", "decoder.npz")
FILES = (*_ARRAYS, *(f"{graph}.onnx" for graph in GRAPHS), *KEPT)
"""All that a weights folder may hold, because an export replaces the folder and must not delete other files
with it."""


@torch.no_grad()
def refit_tables(
    arrays: Arrays, model: SPRDiff, sampler: CropSampler | ShardCrops, crops: int = 256, device: str = "cpu"
) -> None:
    """Replace the Gaussian tables by ones fitted to the residuals of training crops at all levels, in
    place."""
    entropy = EntropyModel(arrays)
    counter = SymbolCounter(entropy.tables)
    for start in range(0, crops, 8):
        x = sampler.batch(2 * 10**9 + start, 0, 8).to(device)
        y, z = (latent.cpu() for latent in model.latent_codec.analyse(model.triple_encoder(x)))
        for i in range(8):
            level = min((start + i) * LEVELS // crops, LEVELS - 1)
            entropy.count(counter, y[i].numpy(), z[i].numpy(), level)
    base = arrays["tables.radius"], arrays["tables.counts"]
    arrays["tables.radius"], arrays["tables.counts"] = fit_tables(counter.histograms, base)


def receptive_field(model: SPRDiff, graph: str) -> int:
    """Measure the one-sided receptive field of a graph in pixels with an impulse: it becomes the halo of
    tiles.

    The largest distance from a changed input at which any output changes by more than 1e-7 of the change's
    peak.
    """
    config, ones = model.config, torch.ones(1)
    level, conditions = 128 * ones, tuple(zip(config.flow, (4, 2, 1), strict=True))
    c32, c16 = config.synthesis
    # Channels, and positions per 32 pixels, of each input that tiles cut.
    graphs: dict[str, tuple[Sequence[tuple[int, int]], Callable[..., Sequence[Tensor]]]] = {
        "encoder": ([(3, 32)], EncoderGraph(model, Branches.of(model))),
        "coarse": (
            [(config.y_channels, 1), (config.y_channels, 1), (config.hyper_features, 1)],
            lambda *known: CoarseGraph(model)(*known, level),
        ),
        "condition": ([(3, 32), (c16, 2), (c32, 1)], ConditionGraph(model)),
        "flow": (
            [(config.vae_latent, 4), *conditions],
            lambda z, *c: (model.flow(z, ones, 0 * ones, level, c),),
        ),
        "vae_decode": ([(config.vae_latent, 4), (3, 32)], lambda *known: (VAEDecodeGraph(model)(*known),)),
    }
    return _reach(*graphs[graph])


_CELLS, _MIDDLE = 70, 34
"""Cells of 32 pixels across the picture that is measured, and which of them changes."""


@torch.no_grad()
def _reach(inputs: Sequence[tuple[int, int]], run: Callable[..., Sequence[Tensor]]) -> int:
    random = torch.Generator().manual_seed(0)
    base = [torch.randn(1, channels, 2 * f, _CELLS * f, generator=random) for channels, f in inputs]
    changed = [x.clone() for x in base]
    for x, (_, f) in zip(changed, inputs, strict=True):
        # Both cells of a position of z.
        x[..., _MIDDLE * f : (_MIDDLE + 2) * f] += 4.0
    return max(_touched(a, b) for a, b in zip(run(*base), run(*changed), strict=True))


def _touched(a: Tensor, b: Tensor) -> int:
    """Return how far beyond the changed cells two outputs differ, in pixels."""
    difference = (a - b).abs().amax((0, 1, 2))
    touched = torch.nonzero(difference > 1e-7 * difference.max()).flatten()
    cell = 32 * _CELLS // difference.numel()
    first, last = int(touched.min()) * cell, (int(touched.max()) + 1) * cell
    if first == 0 or last == 32 * _CELLS:
        raise TrainingError("a network sees farther than halos are measured")
    return max(0, 32 * _MIDDLE - first, last - 32 * (_MIDDLE + 2))


def write_folder(folder: Path, model: SPRDiff, arrays: Arrays, card: dict[str, Any]) -> dict[str, Any]:
    """Write the weights folder; return the manifest.

    Raises:
        TrainingError: the folder holds other files, the exporter changed a weight, or the disk refused a
            file.
    """
    try:
        if folder.exists() and (foreign := {p.name for p in folder.iterdir()} - set(FILES)):
            raise TrainingError(f"{folder} is no weights folder: it holds {sorted(foreign)[0]}")
        with whole_folder(folder) as partial:
            manifest = _write_files(partial, model.eval(), arrays, card)
            for kept in KEPT:
                if (folder / kept).exists():
                    shutil.copy(folder / kept, partial / kept)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error})") from error
    return manifest


def _write_files(partial: Path, model: SPRDiff, arrays: Arrays, card: dict[str, Any]) -> dict[str, Any]:
    graphs = export_graphs(model, partial)
    weights = {n: v.cpu().numpy() for n, v in model.state_dict().items() if not n.startswith(EXACT)}
    # No graph runs the silent ones, but torch loads the model whole.
    silent = (name for name in weights if name.startswith(Branches.of(model).silent))
    sends = {*graphs["encoder"], *silent}
    receives = {name for graph, names in graphs.items() if graph != "encoder" for name in names}
    if lost := sorted(weights.keys() - sends - receives):
        raise TrainingError(f"the exporter folded {lost[0]} into a graph, where no hash sees it")
    encoder, decoder = (packed({n: weights[n] for n in sorted(names)}, HALF) for names in (sends, receives))
    np.savez_compressed(partial / "entropy.npz", **arrays)  # type: ignore[arg-type]
    np.savez(partial / "encoder.npz", **encoder)  # type: ignore[arg-type]
    np.savez(partial / "decoder.npz", **decoder)  # type: ignore[arg-type]
    manifest = {
        "format": FORMAT,
        "preset": model.config.preset,
        "preset_id": model.config.preset_id,
        "generation": GENERATION,
        **identity(arrays, decoder, encoder),
        **defaults(model.config.lambda_range),
        "sampler": SAMPLERS[0],
        "latest": 1.0,
        "halo": {graph: math.ceil(receptive_field(model, graph) / 64) * 64 for graph in graphs},
        # The runtime fills the graphs without the onnx package, so it has to be told what they want.
        "graphs": graphs,
        "config": json.loads(model.config.to_json()),
        "card": card,
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest
