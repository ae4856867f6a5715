"""Prints what the exact part makes of the golden files, the shipped weights' files and random latents, on any
machine.

    python exact_case.py

prints it as JSON. It needs numpy alone; the range coder is that which the machine has.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitstream_helpers import GOLDEN, GOLDEN_WEIGHTS, load_golden_weights, make_latents
from sprdiff.format import rangecoder
from sprdiff.format.container import parse_file
from sprdiff.format.entropy import EntropyModel, Exact

SHIPPED = Path(__file__).parents[2] / "src" / "sprdiff" / "weights" / "tiny" / "entropy.npz"


def results() -> dict[str, Any]:
    """Return SHA-256 of ŷ, μ and h of every golden file, and streams of latents that are the same
    everywhere."""
    found: dict[str, Any] = {}
    expected = json.loads((GOLDEN / "golden.json").read_text())["files"]
    models = {name: EntropyModel(load_golden_weights(name)) for name in GOLDEN_WEIGHTS}
    for name, about in expected.items():
        parsed = parse_file((GOLDEN / f"{name}.sprd").read_bytes())
        model, header = models[about["weights"]], parsed.header
        shape = header.latent_size(model.stride)
        found[name] = digest(model.decode(parsed.stream, shape, header.level))
        half = parsed.stream[: len(parsed.stream) // 2]
        found[f"{name}, half"] = digest(model.decode_beginning(half, shape, header.level))
    for name, model in models.items():
        found[f"{name}, encoded"] = round_trip(model, load_golden_weights(name), (5, 6), 170)
    with np.load(SHIPPED) as arrays:
        shipped = dict(arrays)
    found["shipped"] = round_trip(EntropyModel(shipped), shipped, (16, 24), 100)
    return found


def round_trip(
    model: EntropyModel, arrays: dict[str, NDArray[Any]], shape: tuple[int, int], level: int
) -> str:
    """Return the stream of made-up latents, after checking that it decodes to what was coded."""
    coded = model.encode(*make_latents(arrays, 4, shape), level)
    assert digest(model.decode(coded.stream, shape, level)) == digest(coded)
    return coded.stream.hex()


def digest(exact: Exact) -> str:
    return hashlib.sha256(exact.y_hat.tobytes() + exact.mu.tobytes() + exact.h.tobytes()).hexdigest()


if __name__ == "__main__":
    about = {"machine": platform.machine(), "coder": rangecoder.fastest().__name__}
    sys.stdout.write(json.dumps({**about, "results": results()}))
