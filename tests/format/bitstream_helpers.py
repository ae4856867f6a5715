"""Small random but valid entropy weights and latents from a seed, and pure-Python views of both."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.format.tables import make_gaussian_tables, sigma_ladder

Arrays = dict[str, NDArray[Any]]
Passes = tuple[tuple[int, ...], ...]
Order = Sequence[tuple[int, int]]
CHECKERBOARD: Passes = ((0, 1), (1, 0))


def make_entropy_arrays(
    seed: int,
    y_channels: int = 12,
    z_channels: int = 4,
    groups: tuple[int, ...] = (4, 8),
    features: int = 8,
    hidden: int = 16,
    hyper_hidden: int = 16,
    tables: int = 8,
    ratio: int = 2,
    stride: int = 32,
    passes: Passes = CHECKERBOARD,
    order: Order | None = None,
) -> Arrays:
    """Return the arrays of an ``entropy.npz`` with random networks, whose means and tables are well spread.

    Without `order` the steps go through all groups pass by pass.
    """
    rng = np.random.default_rng(seed)
    order = pass_by_pass(max(map(max, passes)) + 1, len(groups)) if order is None else order
    arrays: Arrays = {"groups": np.array(groups, np.int32), "stride": np.array([stride], np.int32)}
    arrays["passes"], arrays["order"] = np.array(passes, np.int32), np.array(order, np.int32)
    arrays["tables.radius"], arrays["tables.counts"] = make_gaussian_tables(sigma_ladder(tables))
    for name, channels in (("gain.y", y_channels), ("gain.z", z_channels)):
        base = np.geomspace(0.15, 1.5, 256)[:, None] * rng.uniform(0.5, 2.0, channels)
        arrays[name] = np.round(base * 65536).astype(np.uint32)
    arrays["z.mean"] = rng.integers(-400, 400, (256, z_channels)).astype(np.int32)
    arrays["z.index"] = rng.integers(0, tables, (256, z_channels)).astype(np.uint8)
    _layer(arrays, rng, "hyper.0", 9 * z_channels + 9, hyper_hidden)
    _layer(arrays, rng, "hyper.1", hyper_hidden, ratio**2 * features)
    depth = 0
    for step, (_, group) in enumerate(order):
        _layer(arrays, rng, f"context.{step}.0", 9 * depth + features + 9, hidden)
        _layer(arrays, rng, f"context.{step}.1", hidden, hidden)
        _layer(arrays, rng, f"context.{step}.2", hidden, 2 * groups[group])
        spread = arrays[f"context.{step}.2.bias"]
        spread[groups[group] :] = rng.integers(0, tables << 16, groups[group])
        depth = max(depth, sum(groups[: group + 1]))
    return arrays


def pass_by_pass(passes: int, groups: int) -> Order:
    """Return steps pass by pass: all groups of pass 0, then all of pass 1 ..."""
    return [(number, group) for number in range(passes) for group in range(groups)]


def group_by_group(passes: int, groups: int) -> Order:
    """Return steps group by group: group 0 in all passes, then group 1 ..."""
    return [(number, group) for group in range(groups) for number in range(passes)]


def make_tiny_arrays(seed: int) -> Arrays:
    """Return the same arrays at the size of the `tiny` preset."""
    return make_entropy_arrays(seed, 96, 32, (16, 16, 24, 40), 96, 128, 192, 64)


def make_latents(
    arrays: Arrays, seed: int, shape: tuple[int, int], spread: float = 2.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return random (y, z) for a y grid of `shape`: heavy-tailed, so that some symbols leave the narrow
    tables."""
    rng = np.random.default_rng(seed)
    ratio = math.isqrt(len(arrays["hyper.1.bias"]) // (arrays["context.0.0.weight"].shape[1] - 9))
    coarse = (-(-shape[0] // ratio), -(-shape[1] // ratio))
    sizes = ((arrays["gain.y"].shape[1], *shape), (arrays["gain.z"].shape[1], *coarse))
    y, z = (rng.laplace(0, spread, size).astype(np.float32) for size in sizes)
    return y, z


def to_lists(arrays: Arrays) -> dict[str, Any]:
    """Return the arrays as nested lists of ints, for the pure-Python decoder."""
    return {name: array.tolist() for name, array in arrays.items()}


def _layer(arrays: Arrays, rng: np.random.Generator, name: str, inputs: int, outputs: int) -> None:
    weight = rng.normal(0, 4096 / np.sqrt(inputs), (outputs, inputs))
    arrays[f"{name}.weight"] = np.clip(np.round(weight), -32767, 32767).astype(np.int16)
    arrays[f"{name}.bias"] = rng.integers(-(1 << 18), 1 << 20, outputs).astype(np.int64)


GOLDEN = Path(__file__).parents[1] / "data" / "bitstream"
_SMALL: dict[str, Any] = {"features": 6, "hidden": 8, "hyper_hidden": 8}
GOLDEN_WEIGHTS: dict[str, dict[str, Any]] = {
    "checkerboard": {"seed": 2026},
    "three_passes": {
        "seed": 2027,
        "y_channels": 6,
        "groups": (2, 4),
        "stride": 16,
        "ratio": 1,
        "passes": ((0, 1), (2, 0)),
        **_SMALL,
    },
    "four_passes": {
        "seed": 2028,
        "y_channels": 6,
        "groups": (1, 2, 3),
        "stride": 64,
        "ratio": 4,
        "passes": ((0, 2), (3, 1)),
        "order": group_by_group(4, 3),
        **_SMALL,
    },
    "six_passes": {
        "seed": 2030,
        "y_channels": 6,
        "groups": (2, 4),
        "passes": ((0, 4, 2, 4), (5, 3, 5, 3), (2, 4, 1, 4), (5, 3, 5, 3)),
        **_SMALL,
    },
    "any_order": {
        "seed": 2029,
        "y_channels": 5,
        "groups": (2, 1, 2),
        "stride": 8,
        "ratio": 3,
        "tables": 20,
        "passes": ((1, 0), (1, 0)),
        "order": ((1, 1), (0, 2), (0, 1), (1, 0), (1, 2), (0, 0)),
        **_SMALL,
    },
}
"""How `make_entropy_arrays` made the weights of the golden files."""


def load_golden_weights(name: str) -> Arrays:
    """Load the arrays of some of the golden files."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def sha256_of(values: NDArray[Any], kind: str = "<i4") -> str:
    """Return the SHA-256 of integers as little-endian numbers of a kind, [channel, row, column]."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype=kind).tobytes()).hexdigest()
