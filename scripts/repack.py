"""Repacks a folder of format 1 as format 2: ``python scripts/repack.py FOLDER``; it was used once, for the
weights 8f4b.

The arrays stay as they are; ``entropy.npz`` gets those that say how y is coded, ``manifest.json`` the new
hashes and fields. Encoder, decoder and graphs are not touched. It goes with these weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from sprdiff.runtime.weights import FORMAT, defaults, identity, read_arrays

LAMBDA_RANGE = (0.7, 60.0)
"""The values that 8f4b was trained for."""


def main(folder: Path) -> None:
    """Rewrite ``entropy.npz`` and ``manifest.json`` of a folder."""
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["format"] != 1:
        sys.exit(f"{folder} has format {manifest['format']}, not 1")
    exact = read_arrays(folder / "entropy.npz")
    exact["stride"] = np.array([32], np.int32)
    exact["passes"] = np.array([[0, 1], [1, 0]], np.int32)
    exact["order"] = np.array([(p, g) for p in (0, 1) for g in range(len(exact["groups"]))], np.int32)
    names = identity(exact, *(read_arrays(folder / f"{part}.npz") for part in ("decoder", "encoder")))
    first = {"format": FORMAT, "preset": manifest["preset"], "preset_id": manifest["preset_id"]}
    rest = {name: value for name, value in manifest.items() if name not in (*first, *names)}
    manifest = first | names | defaults(LAMBDA_RANGE) | rest
    np.savez_compressed(folder / "entropy.npz", **exact)  # type: ignore[arg-type]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{folder}: {manifest['preset']}-{manifest['tag']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
