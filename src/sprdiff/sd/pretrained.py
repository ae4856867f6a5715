"""A trained SPRDiff of preset `sd`: only what was trained is saved, and it is loaded strictly onto its base
models.

load:   config.json, model.safetensors ─► base models found, their files' hashes compared ─► TorchRuntime
save:   the model and its integer arrays ─► the folder, with a model card ─► push_to_hub
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import WeightsError
from ..format.entropy import EntropyModel
from ..models.config import EXACT
from .folder import read_trained, read_weights, write_trained
from .hub import TRANSFORMERS_WEIGHTS, Source, locate, upload
from .licences import licence_of

if TYPE_CHECKING:
    from .model import SDSPRDiff
    from .runtime import TorchRuntime

Arrays = Mapping[str, NDArray[Any]]


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    base: str | Path | None = None,
    semantic: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    threads: int | None = None,
) -> TorchRuntime:
    """Load the runtime of a trained SPRDiff.

    Args:
        name: its folder, or its id on the hub (at `revision`).
        base, semantic: where the pretrained parts lie, if not where they were when it was trained; their
            files must be the same.
        device, precision, tile: see `TorchRuntime`.
        threads: of torch on the CPU, for the whole process; None: as they are.

    Raises:
        WeightsError: something is missing, unknown, damaged, or not what it was trained on.
        DeviceError: there is no such device, or too little memory on it.
    """
    trained = read_trained(locate(str(name), revision, [("", TRANSFORMERS_WEIGHTS)]).folder)
    arrays, weights = read_weights(trained)
    entropy = EntropyModel(dict(arrays))
    with _needed():
        from .assemble import assemble, set_threads
        from .runtime import TorchRuntime

        set_threads(threads)
        model = assemble(trained, weights, {"base": base, "semantic": semantic})
    return TorchRuntime(model, entropy, trained.manifest, device=device, precision=precision, tile=tile)


def save(
    folder: Path,
    model: SDSPRDiff,
    entropy: Arrays,
    card: Mapping[str, Any] | None = None,
    licence: str = "not stated",
) -> bytes:
    """Write the folder of a trained SPRDiff, whole or not at all; return H.

    Args:
        model: its weights are stored as fp16; of its integer networks only `entropy` is.
        entropy: the integer arrays (``models.stored.entropy_arrays``, with fitted tables).
        card: figures for the model card.
        licence: of what was trained; the base models keep theirs.

    Raises:
        WeightsError: a weight is no number, or beyond fp16; the integer arrays are not a model's.
        OutputError: the folder holds other files, or the disk refuses one.
    """
    EntropyModel(dict(entropy))
    weights = {}
    for name, value in model.trained_state().items():
        if not is_exact(name):
            weights[name] = value.detach().cpu().half().numpy()
            if not np.isfinite(weights[name]).all():
                raise WeightsError(f"{name} holds values that are no numbers in fp16: training diverged")
    texts = {"README.md": model_card(model.sources, card or {}, licence), "LICENSE-weights": licence + "\n"}
    return write_trained(
        folder,
        model.config,
        dict(entropy),
        weights,
        model.sources,
        card=card or {},
        texts=texts,
        version=__version__,
        lambda_range=model.config.lambda_range,
    )


def push_to_hub(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Publish the folder of a trained SPRDiff under an id on the hub; return the address of the commit.

    Nothing of the base models is published, only their ids, revisions and hashes.

    Raises:
        WeightsError: it is no such folder, is damaged, rests on a folder that others do not have, or the hub
            refuses it.
    """
    trained = read_trained(Path(folder))
    read_weights(trained)
    for part, source in trained.sources.items():
        if source.revision is None:
            raise WeightsError(
                f"the {part} model is the folder {source.name}, which others do not have: "
                "train from its id on the hub before publishing"
            )
    return upload(Path(folder), name, private=private)


def is_exact(name: str) -> bool:
    """Whether a weight is stored in the integer arrays."""
    return name.startswith(EXACT)


def model_card(sources: Mapping[str, Source], card: Mapping[str, Any], licence: str) -> str:
    """Return the README of the model's page on the hub: what it is, what it rests on, its figures and its
    limits."""
    based = [source.name for source in sources.values() if source.revision is not None]
    lines = ["---", "library_name: sprdiff", "tags: [image-compression, diffusion]"]
    lines += ["license: other", "license_name: see-below", "base_model:", *(f"- {name}" for name in based)]
    if not based:
        lines.pop()
    lines += ["---", "", "# SPRDiff, preset `sd`", ""]
    lines += [
        "A neural image codec for less than 0.03 bits per pixel (arXiv 2606.01608), trained with",
        "[sprdiff](https://pypi.org/project/sprdiff/).",
        "",
        "Details are invented: not for evidence, faces or text.",
        "",
        "```python",
        "from sprdiff import Codec",
        "",
        'codec = Codec.from_pretrained("THIS/MODEL")',
        'data = codec.encode("photo.jpg", bpp=0.02)',
        "image = codec.decode(data)",
        "```",
        "",
    ]
    lines += ["## Rests on", "", "| part | model | revision | licence |", "|---|---|---|---|"]
    for part, source in sources.items():
        lines.append(
            f"| {part} | {source.name} | {source.revision or 'a folder'} | {licence_of(source.name).name} |"
        )
    lines += ["", f"What was trained on top: {licence}. The licences of the base models go on to hold.", ""]
    if card:
        lines += [
            "## Figures",
            "",
            "| | |",
            "|---|---|",
            *(f"| {k} | {_cell(v)} |" for k, v in card.items()),
            "",
        ]
    return "\n".join(lines)


@contextmanager
def _needed() -> Iterator[None]:
    """Name the extra that installs a missing package."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("sprdiff"):
            raise
        raise WeightsError(f"preset sd needs {error.name}: pip install 'sprdiff[sd]'") from error


def _cell(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")
