"""Golden files of the shipped weights: ``python scripts/make_golden.py`` after every export.

Until 1.0 new weights replace them; from 1.0 on they are only added to. Each is a drawn picture, its file, the SHA-256
of the exact latent that every machine must decode it to, and its pictures (PNG) for the tolerance after the line.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "data" / "tiny"
sys.path.insert(0, str(ROOT / "tests"))

from conftest import photo  # noqa: E402
from sprdiff import Codec  # noqa: E402
from sprdiff.format.container import parse_file  # noqa: E402
from sprdiff.imageio.open import Picture  # noqa: E402

CASES: tuple[tuple[str, tuple[int, int], bool, dict[str, Any]], ...] = (
    ("one_pixel", (1, 1), False, {}),
    ("tiny_square", (64, 64), False, {"quality": 20.0}),
    ("odd", (77, 130), False, {"quality": 60.0}),
    ("grey", (100, 96), True, {"quality": 100.0}),
    ("half_scale", (256, 384), False, {"max_bytes": 400, "scale": 2}),
    ("wide", (40, 500), False, {"quality": 0.0}),
)


def latent_digest(codec: Codec, data: bytes) -> str:
    """SHA-256 of ŷ as little-endian int32 [Cy, h, w]."""
    parsed = parse_file(data)
    header = parsed.header
    y_hat = codec.runtime.entropy.decode(parsed.stream, header.latent_size, header.level)
    return hashlib.sha256(y_hat.astype("<i4").tobytes()).hexdigest()


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
    main()
