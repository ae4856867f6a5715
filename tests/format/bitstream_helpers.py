"""Small random but valid entropy weights, latents and pure-Python views of both, made from a seed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprdiff.format.container import Header, pack_file
from sprdiff.format.entropy import EntropyModel
from sprdiff.format.hash import canonical_hash
from sprdiff.format.tables import make_gaussian_tables, sigma_ladder

Arrays = dict[str, NDArray[Any]]


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
) -> Arrays:
    """Arrays of an ``entropy.npz`` with random networks, their means and tables well spread."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {"groups": np.array(groups, np.int32)}
    arrays["tables.radius"], arrays["tables.counts"] = make_gaussian_tables(sigma_ladder(tables))
    for name, channels in (("gain.y", y_channels), ("gain.z", z_channels)):
        base = np.geomspace(0.15, 1.5, 256)[:, None] * rng.uniform(0.5, 2.0, channels)
        arrays[name] = np.round(base * 65536).astype(np.uint32)
    arrays["z.mean"] = rng.integers(-400, 400, (256, z_channels)).astype(np.int32)
    arrays["z.index"] = rng.integers(0, tables, (256, z_channels)).astype(np.uint8)
    _layer(arrays, rng, "hyper.0", 9 * z_channels + 9, hyper_hidden)
    _layer(arrays, rng, "hyper.1", hyper_hidden, ratio**2 * features)
    for step in range(2 * len(groups)):
        group = step % len(groups)
        depth = y_channels if step >= len(groups) else sum(groups[:group])
        _layer(arrays, rng, f"context.{step}.0", 9 * depth + features + 9, hidden)
        _layer(arrays, rng, f"context.{step}.1", hidden, hidden)
        _layer(arrays, rng, f"context.{step}.2", hidden, 2 * groups[group])
        spread = arrays[f"context.{step}.2.bias"]
        spread[groups[group] :] = rng.integers(0, tables << 16, groups[group])
    return arrays


def make_tiny_arrays(seed: int) -> Arrays:
    """The same at the size of the `tiny` preset."""
    return make_entropy_arrays(seed, 96, 32, (16, 16, 24, 40), 96, 128, 192, 64)


def make_latents(
    arrays: Arrays, seed: int, shape: tuple[int, int], spread: float = 2.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random (y, z) for a y grid of `shape`: heavy-tailed, so that some symbols leave the narrow tables."""
    rng = np.random.default_rng(seed)
    half = (-(-shape[0] // 2), -(-shape[1] // 2))
    sizes = ((arrays["gain.y"].shape[1], *shape), (arrays["gain.z"].shape[1], *half))
    y, z = (rng.laplace(0, spread, size).astype(np.float32) for size in sizes)
    return y, z


def to_lists(arrays: Arrays) -> dict[str, Any]:
    """The arrays as nested lists of ints, for the pure-Python decoder."""
    return {name: array.tolist() for name, array in arrays.items()}


def _layer(arrays: Arrays, rng: np.random.Generator, name: str, inputs: int, outputs: int) -> None:
    weight = rng.normal(0, 4096 / np.sqrt(inputs), (outputs, inputs))
    arrays[f"{name}.weight"] = np.clip(np.round(weight), -32767, 32767).astype(np.int16)
    arrays[f"{name}.bias"] = rng.integers(-(1 << 18), 1 << 20, outputs).astype(np.int64)


GOLDEN = Path(__file__).parents[1] / "data" / "bitstream"
_GOLDEN_FILES = (
    # name, width, height, level, scale code, grey, spread of the latents
    ("one_pixel", 1, 1, 0, 0, False, 1.0),
    ("worked_example", 50, 37, 100, 0, False, 1.0),
    ("grey_half", 300, 141, 200, 2, True, 2.0),
    ("escapes", 97, 65, 255, 0, False, 60.0),
    ("wide", 1000, 20, 37, 1, False, 2.0),
)


def load_golden_weights() -> tuple[Arrays, Arrays]:
    """(entropy arrays, decoder arrays) that the golden files were made with."""
    with np.load(GOLDEN / "entropy.npz") as entropy, np.load(GOLDEN / "decoder.npz") as decoder:
        return dict(entropy), dict(decoder)


def write_golden() -> None:
    """How the golden files were made. They are never made anew: a new format version gets new files."""
    GOLDEN.mkdir(parents=True)
    entropy = make_entropy_arrays(2026)
    decoder = {"coarse.head.weight": np.arange(6, dtype=np.float16).reshape(2, 3) / 8}
    np.savez_compressed(GOLDEN / "entropy.npz", **entropy)  # type: ignore[arg-type]
    np.savez_compressed(GOLDEN / "decoder.npz", **decoder)  # type: ignore[arg-type]
    digest, model = canonical_hash(entropy, decoder), EntropyModel.from_arrays(entropy)
    expected = {"hash": digest.hex(), "files": {}}
    for seed, (name, width, height, level, scale, grey, spread) in enumerate(_GOLDEN_FILES):
        header = Header(width, height, level, scale, grey, 1, digest[:2])
        coded = model.encode(*make_latents(entropy, seed, header.latent_size, spread), level)
        (GOLDEN / f"{name}.sprd").write_bytes(pack_file(header, coded.stream, digest))
        entry = {"width": width, "height": height, "level": level, "scale": scale, "grey": grey}
        expected["files"][name] = {**entry, "y_hat_sha256": sha256_of(coded.y_hat)}  # type: ignore[index]
    (GOLDEN / "golden.json").write_text(json.dumps(expected, indent=1) + "\n")


def sha256_of(y_hat: NDArray[np.int32]) -> str:
    """SHA-256 of y_hat as little-endian int32, [channel, row, column]."""
    return hashlib.sha256(np.ascontiguousarray(y_hat, dtype="<i4").tobytes()).hexdigest()


if __name__ == "__main__":
    write_golden()
