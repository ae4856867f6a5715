"""What keeps libraries from reporting to their makers; `docs/security.md` lists what each of them would send.

Floor 0 of the layout: the package itself imports this before anything else, so that it holds on every way in: command
line, library, Pillow plug-in, service, workers of a batch and of a Ray cluster.
"""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime from 1.29 on: asked once, when it is imported
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and through it diffusers and transformers
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Environment variables and the values that switch the reports off."""


def keep_quiet() -> None:
    """Switch the reports off for this process and those that it starts; a variable that is set already stays."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
