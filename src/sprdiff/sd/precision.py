"""The one precision policy of preset `sd`, by the same four words in training and in use.

    word   pretrained parts   new modules, VAE decoder                                   products on a GPU
    fp32   float32            float32                                                    float32
    tf32   float32            float32                                                    TF32 (10 bits)
    fp16   float16            float32; in training float16 autocast with a loss scale    tensor cores
    bf16   bfloat16           float32; in training bfloat16 autocast                     tensor cores
The latent codec's integer networks are exact, and the clean latent is computed in float32, whatever the word
is. `auto` takes the fastest one that keeps the clean latent within `BUDGET` of float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .config import check_precision

BUDGET = 0.02
"""The root mean square error of the clean latent that a precision may cause; the latent has a deviation near
1."""
ERRORS = {"fp32": 0.0, "tf32": 0.0011, "fp16": 0.0017, "bf16": 0.0126}
"""The measured root mean square error of the UNet's output, whose deviation is 1 (docs/sd.md,
"Precision")."""
FASTEST = ("bf16", "fp16", "tf32", "fp32")
"""The words in the order of their speed on a GPU; bfloat16 comes before float16, because it needs no loss
scale."""


def choose_precision(word: str, gain: float, device: torch.device) -> str:
    """Return what ``auto`` means on a device; any other word is returned as it is.

    Args:
        gain: the factor by which one step multiplies errors of the UNet's output (`SDDenoiser.gain`).

    Raises:
        ValueError: the word is no precision.
    """
    if check_precision(word) != "auto":
        return word
    if device.type != "cuda":
        return "fp32"
    return next(name for name in FASTEST if gain * ERRORS[name] <= BUDGET)


def dtype_of(precision: str) -> torch.dtype:
    """Return the dtype in which the pretrained parts are kept."""
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Allow TF32 for ``tf32`` and forbid it for all other words in a ``with`` block, because cuDNN would use
    it unasked."""
    flags: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags:
            flag.allow_tf32 = precision == "tf32"
        yield
    finally:
        for flag, allowed in zip(flags, before, strict=True):
            flag.allow_tf32 = allowed
