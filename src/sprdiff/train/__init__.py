"""Training (extra ``train``): ``run_stage``, ``run_export`` and ``run_latents`` are what the command line calls."""

from __future__ import annotations

from .export.folder import read_card
from .latents_run import run_latents
from .run import run_export, run_stage
from .sd.options import SDOptions

__all__ = ["SDOptions", "read_card", "run_export", "run_latents", "run_stage"]
