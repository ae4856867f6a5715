"""Training (extra ``train``): ``run_stage`` and ``run_export`` are what the command line calls."""

from __future__ import annotations

from .export.folder import read_card
from .run import run_export, run_stage
from .sd.stages import SDOptions

__all__ = ["SDOptions", "read_card", "run_export", "run_stage"]
