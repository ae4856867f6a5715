"""Training (extra ``train``): one stage, the export of weights, folders of latents.

Names are loaded on first use, so that the command line has its options without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export.run import run_export
    from .latents.run import run_latents
    from .options import LatentsOptions, TrainOptions
    from .run import run_stage
    from .sd.options import SDOptions

__all__ = ["LatentsOptions", "SDOptions", "TrainOptions", "run_export", "run_latents", "run_stage"]

_HOME = {
    "LatentsOptions": "options",
    "SDOptions": "sd.options",
    "TrainOptions": "options",
    "run_export": "export.run",
    "run_latents": "latents.run",
    "run_stage": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
