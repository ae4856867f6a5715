"""Stage ``export``: checkpoints become a folder of weights."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import TrainingError
from ...models.sprdiff import SPRDiff
from ...models.stored import Arrays, entropy_arrays
from ...sd import pretrained
from .. import checkpoints
from ..checkpoints import PARTS
from ..data.photos import CropSampler, open_store
from ..data.remote import ShardCache
from ..data.shards import ShardCrops
from ..initial import build, read_initial
from ..options import SD_PRESET
from ..sd.options import SDOptions
from ..sd.recipes import SD_PARTS
from .folder import refit_tables, write_folder


def run_export(
    init: Sequence[Path],
    out: Path,
    *,
    data: Sequence[str | Path] = (),
    preset: str = "tiny",
    card: dict[str, Any] | None = None,
    exclude: Sequence[str] = (),
    cache: Path | None = None,
    crops: int = 1024,
    crop: int | None = None,
    sd: SDOptions | None = None,
) -> None:
    """Write a folder of weights from the EMA weights of checkpoints that together hold every network.

    Args:
        init: the checkpoints; if several hold a network, the last of them counts.
        out: the folder of weights. If it replaces an older one, MODEL_CARD.md and LICENSE-weights are kept.
        data: photographs to which the probability tables are fitted; without any the tables stay Gaussian.
        card: figures for the manifest.
        exclude: prefixes of file names that are left out.
        cache: a folder for decoded photographs or fetched shards; None: a temporary one.
        crops: how many crops the tables are fitted to.
        crop: their side in pixels; None: 256, or 512 for preset `sd`.
        sd: the options of preset `sd`, whose folder holds only what was trained.

    Raises:
        TrainingError: a network is missing, does not fit or is not finite; there is no data; the disk is
            full.
        WeightsError: a pretrained part of preset `sd` cannot be loaded.
    """
    model = build(preset, sd)
    found = {part for path in init for part in checkpoints.load_networks(model, read_initial(path), path)}
    # The pretrained part of `tiny` comes from a package: `build` has loaded it.
    if missing := set(SD_PARTS if preset == SD_PRESET else PARTS) - found - {"triple_encoder.semantic"}:
        raise TrainingError(f"the export needs trained {', '.join(sorted(missing))}: give --init")
    if not checkpoints.all_finite(checkpoints.own_state(model)):
        raise TrainingError("some weights are not numbers: a checkpoint is of a run that diverged")
    arrays = entropy_arrays(model.eval().latent_codec)
    if data:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            place = cache or Path(scratch)
            if preset == SD_PRESET:
                shards = ShardCrops(
                    list(map(str, data)), ShardCache(place), crop or 512, seed=0, exclude=exclude
                )
                _refit_sd(arrays, model, shards, crops)
            else:
                store = open_store([Path(source) for source in data], place, list(exclude))
                refit_tables(arrays, model, CropSampler(store, crop or 256, seed=0), crops)
    if preset == SD_PRESET:
        pretrained.save(out, model, arrays, card or {})  # type: ignore[arg-type]
    else:
        write_folder(out, model, arrays, card or {})


def _refit_sd(arrays: Arrays, model: SPRDiff, shards: ShardCrops, crops: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        refit_tables(arrays, model.to(device), shards, crops, device)
    finally:
        shards.close()
