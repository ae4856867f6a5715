"""``sprdiff models``: the presets, their parts, licences and sizes. It loads no network."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..sd.licences import LICENCES
from .files import tell

_PARTS = {
    "tiny": {
        "what": "shipped with the package; any CPU, no download",
        "networks": "all of this project's but for EfficientNet-Lite0: 16.2 million parameters, 29.8 MB",
        "extra": "none to use, 'train' to train",
        "licence": "see LICENSE-weights beside the weights (sprdiff info)",
    },
    "sd": {
        "what": "the paper's scale; one GPU to use, several to train; "
        "weights are trained by whoever has them",
        "networks": "AutoencoderKL, UNet2DConditionModel with LoRA, DINOv2, ELIC's g_a: "
        "1.1 billion parameters, "
        "of them 77 million (154 MB) trained here",
        "extra": "'sd' to use, 'sd' and 'train' to train",
        "licence": "of what was trained: its model card; of the parts: below",
    },
}


def models(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> int:
    """List the presets, their parts and their licences."""
    about: dict[str, Any] = {
        "presets": _presets(),
        "pretrained parts of sd": [asdict(licence) for licence in LICENCES],
    }
    tell(json.dumps(about, indent=2) if as_json else "\n".join(_lines()))
    return 0


def _presets() -> dict[str, dict[str, str]]:
    """Return the presets, and which weights of `tiny` come with this installation."""
    from ..errors import WeightsError
    from ..fileinfo import model_info

    try:
        model = model_info()
    except WeightsError:  # an installation without weights lists the presets, too
        return _PARTS
    shipped = (
        f"{model.preset}-{model.tag}, decoder {model.decoder_hash[:16]}, encoder {model.encoder_hash[:16]}"
    )
    return _PARTS | {"tiny": {**_PARTS["tiny"], "weights": shipped}}


def _lines() -> list[str]:
    lines = []
    for preset, about in _presets().items():
        lines += [f"preset {preset}", *(f"  {name:<8}  {text}" for name, text in about.items()), ""]
    lines.append("pretrained parts of sd, with the licences that their model cards state")
    for part, option in (("base", "--base"), ("semantic", "--semantic")):
        lines.append(f"  {option}: any model of this class; known ones:")
        for licence in (licence for licence in LICENCES if licence.part == part):
            lines += [
                f"    {licence.model}  ({licence.megabytes} MB used)",
                f"      {licence.name}: {licence.link}",
                f"      restricts: {licence.restricts}",
            ]
    return lines
