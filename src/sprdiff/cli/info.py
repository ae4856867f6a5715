"""The output of ``sprdiff info``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .. import __version__
from ..fileinfo import FileInfo, ModelInfo


def file_lines(name: str, about: FileInfo) -> str:
    """Return the lines about a file."""
    coded = (
        f", coded as {about.coded_width} x {about.coded_height} (1/{about.scale:g})"
        if about.scale > 1
        else ""
    )
    made_here = {"at hand": "", "other": ", which are not the weights at hand", "unknown": ""}[about.weights]
    return _block(
        name,
        {
            "picture": f"{about.width} x {about.height}, {'grey' if about.grey else 'colour'}{coded}",
            "size": f"{about.bytes} bytes ({about.header_bytes} of them header), {about.bpp:.4f} bpp",
            "quality": f"{about.quality:g} (level {about.level})",
            "model": about.model + made_here,
            "format": f"version {about.version}",
        }
        | ({"whole": f"no: {held(about.known)}"} if about.whole is False else {}),
    )


def held(known: float | None) -> str:
    """Say how much of a picture a cut-off file contains."""
    return (
        "cut off or damaged" if known is None else f"cut off or damaged, it holds {known:.1%} of the symbols"
    )


def model_lines(model: ModelInfo) -> str:
    """Return the lines about a model: its names, licence and card."""
    about = {
        "model": f"{model.preset}-{model.tag}",
        "decoder": model.decoder_hash[:16],
        "encoder": model.encoder_hash[:16],
        "licence": model.licence,
        "size": f"{model.bytes / 1e6:.1f} MB",
        "folder": model.folder,
    }
    return _block(f"sprdiff {__version__}", about | dict(_flat(model.card)))


def to_json(about: FileInfo | ModelInfo | Sequence[FileInfo]) -> str:
    """Return one JSON object, or a list of objects for several files."""
    return json.dumps(
        asdict(about) if isinstance(about, (FileInfo, ModelInfo)) else [asdict(a) for a in about], indent=2
    )


def _block(title: str, lines: Mapping[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in lines.items())])


def _flat(card: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in card.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield prefix + name, " ".join(text.split())
