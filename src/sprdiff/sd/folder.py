"""The folder of a trained SPRDiff of preset `sd`: it holds only what was trained, and names what it was
trained on.

    config.json         sizes, the pretrained parts (id, revision, SHA-256 of every file), the hashes, figures
    model.safetensors   LoRA and new modules, fp16, by torch's parameter names; `entropy.*`: integer arrays
    README.md, LICENSE-weights   model card for the hub, licence

Nothing here needs torch: what the folder says can be read, checked and hashed without any network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.files import open_regular, whole_folder
from ..common.messages import reason
from ..errors import OutputError, WeightsError
from ..runtime.weights import (
    MAX_MANIFEST,
    Manifest,
    check_hash,
    defaults,
    identity,
    read_identity,
    read_limited,
)
from .config import SDConfig
from .hub import Source

Arrays = dict[str, NDArray[Any]]

FORMAT = 2
CONFIG, WEIGHTS = "config.json", "model.safetensors"
FILES = (CONFIG, WEIGHTS, "README.md", "LICENSE-weights")
"""All that such a folder may hold, because saving replaces the folder and must not delete other files with
it."""
PARTS = ("base", "semantic")
RECEIVER = ("synthesis.", "reconstruction.", "denoiser.")
"""Prefixes of the weights that a decoder runs; the other weights are the encoder's."""
ENTROPY = "entropy."


@dataclass(frozen=True)
class Trained:
    """The contents of ``config.json``.

    Attributes:
        sources: where the pretrained parts come from, by ``base`` and ``semantic``.
        card: figures of the model card.
    """

    folder: Path
    manifest: Manifest
    config: SDConfig
    sources: Mapping[str, Source]
    card: dict[str, Any]


def is_trained(folder: Path) -> bool:
    """Whether a folder is of this kind, and not one of ONNX graphs."""
    return (folder / CONFIG).is_file() and not (folder / "manifest.json").exists()


def read_trained(folder: Path) -> Trained:
    """Read and check ``config.json``.

    Raises:
        WeightsError: missing, damaged, or of another version.
    """
    path = folder / CONFIG
    data = read_limited(path, MAX_MANIFEST)
    try:
        content = json.loads(data)
        if content.get("format") != FORMAT or "sprdiff" not in content:
            raise WeightsError(f"{path} is not of a trained SPRDiff that this version reads")
        config = SDConfig.from_json(json.dumps(content["config"]))
        sources = {part: _source(content[part]) for part in PARTS}
        names = read_identity(path, content)
        card = content["card"]
        if not isinstance(card, dict):
            raise ValueError("card")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not the configuration of a trained SPRDiff: {error!r}") from error
    # There are no graphs here.
    manifest = Manifest(config.preset, config.preset_id, **names, halo={}, graphs={})
    return Trained(folder, manifest, config, sources, card)


def read_weights(trained: Trained) -> tuple[Arrays, Arrays]:
    """Read the integer arrays and the trained weights, and check that they are those that ``config.json``
    names.

    The files of the base models are taken to be those that it names: whoever loads them compares them.

    Raises:
        WeightsError: missing, damaged, or of another hash.
    """
    path = trained.folder / WEIGHTS
    safetensors, load_file, _ = _library()
    try:
        open_regular(path).close()  # the library would wait at a pipe for ever
        arrays: Arrays = load_file(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {reason(error)}") from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    entropy = {k.removeprefix(ENTROPY): v for k, v in arrays.items() if k.startswith(ENTROPY)}
    weights = {k: v for k, v in arrays.items() if not k.startswith(ENTROPY)}
    decoder, encoder = hashed_parts(weights, trained.sources)
    check_hash(trained.folder, "exact part", entropy, trained.manifest.weights_hash)
    check_hash(trained.folder, "decoder", decoder, trained.manifest.decoder_hash)
    check_hash(trained.folder, "encoder", encoder, trained.manifest.encoder_hash)
    return entropy, weights


def write_trained(
    folder: Path,
    config: SDConfig,
    entropy: Arrays,
    weights: Arrays,
    sources: Mapping[str, Source],
    *,
    card: Mapping[str, Any],
    texts: Mapping[str, str],
    version: str,
    lambda_range: tuple[float, float],
) -> bytes:
    """Write the folder, whole or not at all; return H.

    Args:
        texts: further files, of those in `FILES`.
        lambda_range: as `Manifest` has it.

    Raises:
        OutputError: the folder holds other files, or the disk refuses one.
    """
    names = identity(entropy, *hashed_parts(weights, sources))
    content = {
        "sprdiff": version,
        "format": FORMAT,
        "preset": config.preset,
        **names,
        **defaults(lambda_range),
        "config": json.loads(config.to_json()),
        **{part: {"id": s.name, "revision": s.revision, "files": s.files} for part, s in sources.items()},
        "card": dict(card),
    }
    arrays = {**weights, **{ENTROPY + name: value for name, value in entropy.items()}}
    safetensors, _, save_file = _library()
    try:
        if folder.exists() and (foreign := {p.name for p in folder.iterdir()} - set(FILES)):
            raise OutputError(f"{folder} is no folder of a trained SPRDiff: it holds {sorted(foreign)[0]}")
        with whole_folder(folder) as partial:
            contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
            save_file(contiguous, partial / WEIGHTS)
            for name, text in texts.items():
                (partial / name).write_text(text, "utf-8")
            (partial / CONFIG).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    except (OSError, safetensors.SafetensorError) as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    return bytes.fromhex(names["hash"])


def hashed_parts(weights: Arrays, sources: Mapping[str, Source]) -> tuple[Arrays, Arrays]:
    """Return what the hashes of decoder and encoder cover: their trained weights as stored, and the files
    that they rest on.

    A file of a pretrained part counts as an array, ``base/PATH`` or ``semantic/PATH``, of the 32 bytes of its
    SHA-256. Both rest on the base model; only the encoder rests on the semantic one.
    """
    base, semantic = (_digests(part, sources[part].files) for part in PARTS)
    decoder = {name: value for name, value in weights.items() if name.startswith(RECEIVER)}
    encoder = {name: value for name, value in weights.items() if name not in decoder}
    return decoder | base, encoder | base | semantic


def _digests(part: str, files: Mapping[str, str]) -> Arrays:
    return {
        f"{part}/{file}": np.frombuffer(bytes.fromhex(digest), np.uint8) for file, digest in files.items()
    }


def _source(content: Any) -> Source:
    name, revision, files = content["id"], content["revision"], content["files"]
    sound = (
        isinstance(name, str) and (revision is None or isinstance(revision, str)) and isinstance(files, dict)
    )
    if not sound or not all(len(bytes.fromhex(digest)) == 32 for digest in files.values()):
        raise ValueError("a pretrained part")
    return Source(name, revision, Path(name), dict(files))


def _library() -> tuple[Any, Any, Any]:
    try:
        import safetensors
        from safetensors.numpy import load_file, save_file
    except ImportError as error:
        raise WeightsError("preset sd needs more packages: pip install 'sprdiff[sd]'") from error
    return safetensors, load_file, save_file
