"""Makes the golden files. ``python scripts/make_golden.py`` runs after every export, ``... --format`` for a
new format version.

Of the shipped weights: until 1.0 new weights replace them; from 1.0 on they are only added to. Each is a
drawn picture, its file, the SHA-256 of the exact latent that every machine must decode it to, and its
pictures (PNG) for the tolerance after the line. Of the format: files of small random weights, with the
SHA-256 of all that is exact, and of what some beginnings of them say (``... --beginnings`` made these later).
They are never made anew: ``--format`` adds those that are missing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "data" / "tiny"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "format")]

from bitstream_helpers import (  # noqa: E402
    GOLDEN,
    GOLDEN_WEIGHTS,
    load_golden_weights,
    make_entropy_arrays,
    make_latents,
    sha256_of,
)
from conftest import photo  # noqa: E402
from sprdiff import Codec  # noqa: E402
from sprdiff.format.container import Header, pack_file, parse_file  # noqa: E402
from sprdiff.format.entropy import EntropyModel  # noqa: E402
from sprdiff.format.hash import canonical_hash  # noqa: E402
from sprdiff.imageio.open import Picture  # noqa: E402

CASES: tuple[tuple[str, tuple[int, int], bool, dict[str, Any]], ...] = (
    ("one_pixel", (1, 1), False, {}),
    ("tiny_square", (64, 64), False, {"quality": 20.0}),
    ("odd", (77, 130), False, {"quality": 60.0}),
    ("grey", (100, 96), True, {"quality": 100.0}),
    ("half_scale", (256, 384), False, {"max_bytes": 400, "scale": 2}),
    ("wide", (40, 500), False, {"quality": 0.0}),
)


FORMAT_CASES: tuple[tuple[str, str, Header, float | bytes], ...] = (
    # name, weights, header without its tag, then the spread of random latents, or a stream as it is
    ("one_pixel", "checkerboard", Header(1, 1, 0, 0, False, 1, b"xx"), 1.0),
    ("worked_example", "checkerboard", Header(50, 37, 100, 0, False, 1, b"xx"), 1.0),
    ("grey_half", "checkerboard", Header(300, 141, 200, 2, True, 1, b"xx"), 2.0),
    ("escapes", "checkerboard", Header(97, 65, 255, 0, False, 1, b"xx"), 60.0),
    ("wide", "checkerboard", Header(1000, 20, 37, 1, False, 1, b"xx"), 2.0),
    ("empty", "checkerboard", Header(40, 70, 150, 0, False, 1, b"xx"), b""),
    ("zeros_left_out", "checkerboard", Header(40, 70, 150, 0, False, 1, b"xx"), b"\x93\x51\x20"),
    ("zeros_kept", "checkerboard", Header(40, 70, 150, 0, False, 1, b"xx"), b"\x93\x51\x20" + bytes(9)),
    ("three_passes", "three_passes", Header(70, 53, 120, 0, False, 1, b"xx"), 2.0),
    ("three_passes_row", "three_passes", Header(200, 1, 30, 0, True, 2, b"xx"), 2.0),
    ("four_passes", "four_passes", Header(500, 300, 90, 0, False, 2, b"xx"), 2.0),
    ("four_passes_position", "four_passes", Header(9, 8, 60, 0, False, 2, b"xx"), 9.0),
    ("any_order", "any_order", Header(60, 44, 180, 0, False, 1, b"xx"), 3.0),
    ("any_order_escapes", "any_order", Header(21, 33, 255, 0, False, 1, b"xx"), 300.0),
    ("six_passes", "six_passes", Header(300, 170, 110, 0, False, 1, b"xx"), 2.0),
    ("six_passes_row", "six_passes", Header(500, 40, 230, 0, False, 1, b"xx"), 40.0),
)


def write_format() -> None:
    """Add the golden files of the format that are not there yet; never over old ones."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    index = GOLDEN / "golden.json"
    expected = json.loads(index.read_text()) if index.exists() else {"hashes": {}, "files": {}}
    for name in GOLDEN_WEIGHTS.keys() - expected["hashes"].keys():
        arrays = make_entropy_arrays(**GOLDEN_WEIGHTS[name])
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)  # type: ignore[arg-type]
        expected["hashes"][name] = canonical_hash(arrays).hex()
    for seed, (name, weights, blank, content) in enumerate(FORMAT_CASES):
        if name in expected["files"]:
            continue
        arrays, digest = load_golden_weights(weights), bytes.fromhex(expected["hashes"][weights])
        model = EntropyModel(arrays)
        header, shape = replace(blank, tag=digest[:2]), blank.latent_size(model.stride)
        if isinstance(content, float):
            content = model.encode(*make_latents(arrays, seed, shape, content), header.level).stream
        exact = model.decode(content, shape, header.level)
        (GOLDEN / f"{name}.sprd").write_bytes(pack_file(header, content, digest))
        fields = {key: value for key, value in asdict(header).items() if key != "tag"}
        digests = {"y_hat": sha256_of(exact.y_hat), "mu": sha256_of(exact.mu), "h": sha256_of(exact.h, "<i2")}
        expected["files"][name] = {"weights": weights, "header": fields, "sha256": digests}
    index.write_text(json.dumps(expected, indent=1) + "\n")


def beginnings() -> dict[str, dict[str, dict[str, Any]]]:
    """Return what beginnings of each golden file say, by its name and the number of bytes of its stream."""
    expected = json.loads((GOLDEN / "golden.json").read_text())["files"]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, file in expected.items():
        model = EntropyModel(load_golden_weights(file["weights"]))
        parsed = parse_file((GOLDEN / f"{name}.sprd").read_bytes())
        shape, level, size = parsed.header.latent_size(model.stride), parsed.header.level, len(parsed.stream)
        found[name] = {}
        for length in sorted({0, 1, 7, size // 3, size // 2, max(0, size - 3)} & {*range(size + 1)}):
            part = model.decode_beginning(parsed.stream[:length], shape, level)
            found[name][str(length)] = {
                "known": part.known,
                "symbols": part.symbols,
                "y_hat": sha256_of(part.y_hat),
            }
    return found


def latent_digest(codec: Codec, data: bytes) -> str:
    """Return the SHA-256 of ŷ as little-endian int32 [Cy, h, w]."""
    parsed = parse_file(data)
    header = parsed.header
    entropy = codec.runtime.entropy
    exact = entropy.decode(parsed.stream, header.latent_size(entropy.stride), header.level)
    return sha256_of(exact.y_hat)


def main() -> None:
    """Write all cases with the shipped weights."""
    codec = Codec()
    FOLDER.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, (height, width), grey, options in CASES:
        data = codec.encode(Picture(photo(height, width), grey, ()), **options)
        (FOLDER / f"{name}.sprd").write_bytes(data)
        for realism in (0, 1):
            codec.decode(data, realism=realism).save(FOLDER / f"{name}_{realism}.png", optimize=True)
        digests[name] = latent_digest(codec, data)
    (FOLDER / "golden.json").write_text(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    if "--beginnings" in sys.argv[1:]:
        (GOLDEN / "beginnings.json").write_text(json.dumps(beginnings(), indent=1) + "\n")
    else:
        write_format() if "--format" in sys.argv[1:] else main()
