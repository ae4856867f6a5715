"""Switches that keep libraries from sending reports to their makers; `docs/security.md` lists what each would
send.

This is floor 0 of the layout: the package imports this module before anything else, so that it holds for the
command line, the library, the Pillow plug-in, the service, and the workers of a batch and of a Ray cluster.
"""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime from 1.29 on reads it once, when it is imported
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and with it diffusers and transformers
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Environment variables with the values that switch the reports off."""


def keep_quiet() -> None:
    """Switch the reports off for this process and those that it starts; a variable that is set already
    does not change."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
