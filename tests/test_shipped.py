"""Tests of the shipped weights: they are whole, within their budgets, and give the same latents from the same
bytes everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import sprdiff
from conftest import photo
from docs_rules import pyproject
from sprdiff import Codec
from sprdiff.evaluate.metrics.distortion import psnr
from sprdiff.fileinfo import model_info
from sprdiff.format.container import parse_file

GOLDEN = Path(__file__).parent / "data" / "tiny"
FOLDER = Path(sprdiff.__file__).parent / "weights" / "tiny"
DIGESTS: dict[str, str] = json.loads((GOLDEN / "golden.json").read_text())

LATENT = """
import hashlib, sys
from sprdiff import Codec
from sprdiff.format.container import parse_file
codec = Codec(threads=int(sys.argv[1]))
for name in sys.argv[2:]:
    parsed = parse_file(open(name, "rb").read())
    entropy = codec.runtime.entropy
    exact = entropy.decode(parsed.stream, parsed.header.latent_size(entropy.stride), parsed.header.level)
    print(hashlib.sha256(exact.y_hat.astype("<i4").tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(threads=1)


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_a_golden_file_decodes_to_the_recorded_latent(codec: Codec, name: str) -> None:
    parsed, entropy = parse_file((GOLDEN / f"{name}.sprd").read_bytes()), codec.runtime.entropy
    exact = entropy.decode(parsed.stream, parsed.header.latent_size(entropy.stride), parsed.header.level)
    assert hashlib.sha256(exact.y_hat.astype("<i4").tobytes()).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("threads", [1, 2])
def test_another_process_with_other_threads_decodes_the_same_latents(threads: int) -> None:
    files = [str(GOLDEN / f"{name}.sprd") for name in DIGESTS]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", LATENT, str(threads), *files],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    assert done.stdout.split() == list(DIGESTS.values())


@pytest.mark.parametrize("realism", [0, 1])
@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_a_golden_picture_is_within_the_tolerance_after_the_line(
    codec: Codec, name: str, realism: int
) -> None:
    decoded = np.asarray(codec.decode((GOLDEN / f"{name}.sprd").read_bytes(), realism=realism), np.float64)
    with Image.open(GOLDEN / f"{name}_{realism}.png") as image:
        difference = np.abs(decoded - np.asarray(image, np.float64))
    assert difference.max() <= 2
    assert np.sqrt(np.mean(difference**2)) <= 0.3


def test_the_files_are_at_most_30_megabytes_and_those_of_a_receiver_20() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(sizes.values()) <= 30e6
    assert sum(size for name, size in sizes.items() if not name.startswith("encoder.")) <= 20e6


def test_the_card_and_the_licence_are_there_and_agree() -> None:
    licence, card = (FOLDER / name for name in ("LICENSE-weights", "MODEL_CARD.md"))
    text = licence.read_text()
    assert text.startswith("CC BY-SA 4.0") and "Attribution-ShareAlike 4.0 International" in text
    assert "CC BY-SA 4.0" in card.read_text() and "CC-BY-SA-4.0" in pyproject()["project"]["license"]
    with np.load(FOLDER / "encoder.npz", allow_pickle=False) as arrays:
        assert any(name.startswith("triple_encoder.semantic.") for name in arrays.files), (
            "the licence says so"
        )


def test_the_card_names_the_weights_that_it_describes() -> None:
    assert f"tag {model_info().tag}" in (FOLDER / "MODEL_CARD.md").read_text().splitlines()[0]


def _picture() -> NDArray[np.uint8]:
    return photo(256, 384, seed=3)


def test_more_quality_is_more_bytes_and_more_decibels(codec: Codec) -> None:
    picture = _picture()
    files = [codec.encode(picture, quality=q) for q in (0, 25, 50, 75, 100)]
    sizes = [len(f) for f in files]
    assert sizes == sorted(sizes)
    decibels = [psnr(picture, np.asarray(codec.decode(f, realism=0))) for f in files]
    assert decibels[-1] > decibels[0] + 1
    assert decibels[0] > 20


def test_the_default_is_a_fiftieth_of_a_bit_per_pixel(codec: Codec) -> None:
    picture = _picture()
    data = codec.encode(picture)
    assert len(data) <= 0.02 * 256 * 384 / 8


def test_a_twelve_megapixel_photo_fits_into_1200_bytes(codec: Codec) -> None:
    data = codec.encode(photo(3000, 4000, seed=1), max_bytes=1200)
    assert 1164 <= len(data) <= 1200
    assert parse_file(data).header.scale > 0


def test_the_realism_dial_ends_at_both_pictures(codec: Codec) -> None:
    data = codec.encode(_picture(), bpp=0.02)
    ends = [np.asarray(codec.decode(data, realism=r), np.float64) for r in (0, 0.5, 1)]
    assert np.abs(ends[1] - (ends[0] + ends[2]) / 2).max() <= 1
    assert np.abs(ends[0] - ends[2]).max() > 2
