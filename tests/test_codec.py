"""Tests of the codec from end to end with random weights: round trips, promises of rate control, and damaged
files."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import sprdiff.codec
from conftest import photo
from source_helpers import COMPOSITE, source_type
from sprdiff.codec import Codec
from sprdiff.errors import TargetError
from sprdiff.format.container import parse_file
from sprdiff.imageio.open import open_rgb

pytest_plugins = ("weights_fixture",)

PICTURE = photo(256, 384)
SIZES = [(1, 1), (1, 300), (300, 1), (31, 33), (64, 64), (65, 127), (200, 100)]


def levels(codec: Codec, data: bytes) -> tuple[int, int]:
    header = parse_file(data).header
    return header.scale, header.level


# --- round trips


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1, 1.5, "8"])
def test_any_size_comes_back(codec: Codec, size: tuple[int, int], scale: str | float) -> None:
    data = codec.encode(photo(*size), quality=30, scale=scale)
    image = codec.decode(data)
    assert (image.height, image.width, image.mode) == (*size, "RGB")
    header = parse_file(data).header
    assert (header.height, header.width, header.level) == (*size, 77)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 140), st.integers(1, 140), st.booleans(), st.floats(0, 100))
def test_sizes_and_modes(codec: Codec, width: int, height: int, grey: bool, quality: float) -> None:
    pixels = photo(height, width)
    image = codec.decode(codec.encode(pixels[:, :, 0] if grey else pixels, quality=quality))
    assert (image.size, image.mode) == ((width, height), "L" if grey else "RGB")


def test_all_inputs_give_the_same_file(codec: Codec, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    with Image.open(path) as image, open(path, "rb") as file:
        for source in (path, str(path), path.read_bytes(), image, file, PICTURE, open_rgb(path)):
            assert codec.encode(source, quality=50) == data


def test_grey_is_one_channel(codec: Codec) -> None:
    grey = Image.fromarray(PICTURE[:, :, 0])
    data = codec.encode(grey, quality=50)
    assert data == codec.encode(PICTURE[:, :, 0], quality=50)
    assert codec.decode(data).mode == "L"
    assert np.array_equal(
        np.asarray(codec.decode(data)), np.asarray(codec.decode(data).convert("RGB"))[:, :, 0]
    )


def test_transparency_lies_on_the_background(codec: Codec) -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    black = codec.encode(np.zeros((40, 40, 3), np.uint8), quality=50)
    assert codec.encode(clear, quality=50, background="black") == black
    assert codec.encode(clear, quality=50) != black


def test_coding_is_deterministic(nano_weights: Path, data: bytes, codec: Codec) -> None:
    other = Codec(nano_weights, threads=2)
    header = len(parse_file(data).header.pack())
    assert other.encode(PICTURE, quality=50)[:header] == data[:header]
    assert codec.encode(PICTURE, quality=50) == data
    a, b = (np.asarray(codec.decode(data, steps=2, seed=3)) for _ in range(2))
    assert np.array_equal(a, b)


def test_threads_share_a_codec(codec: Codec, data: bytes) -> None:
    expected = np.asarray(codec.decode(data))
    found: list[NDArray[np.uint8]] = []
    workers = [
        threading.Thread(target=lambda: found.append(np.asarray(codec.decode(data)))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and all(np.array_equal(expected, image) for image in found)


def test_processes_and_thread_counts_agree(nano_weights: Path, data: bytes, tmp_path: Path) -> None:
    """The exact part agrees to the bit, and pictures agree within 2 of 255."""
    (tmp_path / "a.sprd").write_bytes(data)
    script = """
import sys, numpy as np
from sprdiff.codec import Codec
from sprdiff.format.container import parse_file
weights, source, target, threads = sys.argv[1:]
codec, data = Codec(weights, threads=int(threads)), open(source, "rb").read()
file = parse_file(data)
entropy = codec.runtime.entropy
exact = entropy.decode(file.stream, file.header.latent_size(entropy.stride), file.header.level)
np.savez(target, y_hat=exact.y_hat, mu=exact.mu, h=exact.h, picture=np.asarray(codec.decode(data, steps=2)))
"""
    results = []
    for threads in ("1", "2"):
        target = tmp_path / f"{threads}.npz"
        arguments = [str(nano_weights), str(tmp_path / "a.sprd"), str(target), threads]
        environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=environment)
        results.append(np.load(target))
    one, two = results
    assert all(np.array_equal(one[name], two[name]) for name in ("y_hat", "mu", "h"))
    assert np.abs(one["picture"].astype(int) - two["picture"]).max() <= 2


def test_dials(codec: Codec, data: bytes) -> None:
    def picture(**dials: float) -> NDArray[np.float64]:
        return np.asarray(codec.decode(data, **dials), float)  # type: ignore[arg-type]

    coarse, half, decoded = (picture(realism=r) for r in (0, 0.5, 1))
    assert np.abs(coarse - decoded).max() > 5
    assert np.abs(half - (coarse + decoded) / 2).max() <= 1
    assert np.array_equal(picture(steps=1, seed=0), decoded)
    assert not np.array_equal(picture(steps=1, seed=1), decoded)
    assert np.array_equal(picture(realism=0, seed=1), coarse)
    assert not np.array_equal(picture(steps=4, seed=1), picture(steps=4, seed=2))


@pytest.mark.parametrize("length", [None, 100])
def test_above_realism_0_a_picture_says_that_it_is_invented(
    codec: Codec, data: bytes, length: int | None
) -> None:
    for realism, wanted in ((0, None), (1e-6, COMPOSITE), (1, COMPOSITE)):
        image = codec.decode(data[:length], realism=realism, partial=length is not None)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        assert source_type(stream.getvalue()) == wanted
        assert ("xmp" in image.info) is (wanted is not None)


def test_the_realism_that_the_weights_choose_counts(codec: Codec, data: bytes) -> None:
    level = parse_file(data).header.level
    for chosen in (0.0, 0.25):
        other = Codec.from_runtime(codec.runtime)
        table = [1.0 - bool(chosen)] * 256
        table[level] = chosen
        other._manifest = replace(codec.manifest, realism=tuple(table))
        assert ("xmp" in other.decode(data).info) is (chosen > 0)


@pytest.mark.parametrize(
    "dials",
    [
        {"realism": -0.1},
        {"realism": 1.1},
        {"realism": float("nan")},
        {"steps": 0},
        {"steps": 1001},
        {"steps": 1.5},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_dials_out_of_range(codec: Codec, data: bytes, dials: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(dials))):
        codec.decode(data, **dials)  # type: ignore[arg-type]


# --- rate control


def test_quality_is_a_level_and_scale_1(codec: Codec) -> None:
    for quality, level in ((0, 0), (10, 26), (100, 255)):
        assert levels(codec, codec.encode(PICTURE, quality=quality)) == (0, level)
    assert levels(codec, codec.encode(PICTURE, quality=10, scale=2)) == (2, 26)


def test_more_quality_takes_more_bytes(codec: Codec) -> None:
    sizes = [len(codec.encode(PICTURE, quality=q)) for q in (0, 25, 50, 75, 100)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("target", [100, 250, 400, 401, 555, 700, 1000, 1500])
def test_byte_targets_are_kept_and_used(codec: Codec, target: int) -> None:
    data = codec.encode(PICTURE, max_bytes=target)
    scale, level = levels(codec, data)
    assert len(data) <= target
    if level < 255:
        factor = (1, 1.5, 2, 3, 4, 6, 8)[scale]
        next_quality = (level + 1) * 100 / 255
        assert len(codec.encode(PICTURE, quality=next_quality, scale=factor)) > target
        assert target < 400 or len(data) >= 0.97 * target


def test_rate_targets_count_every_pixel_and_byte(codec: Codec) -> None:
    for bpp in (0.01, 0.02, 0.05):
        data = codec.encode(PICTURE, bpp=bpp)
        assert len(data) * 8 <= bpp * 256 * 384
        assert data == codec.encode(PICTURE, max_bytes=int(bpp * 256 * 384 / 8))
    assert codec.encode(PICTURE) == codec.encode(PICTURE, bpp=0.02)


def test_large_targets_reach_the_highest_level(codec: Codec) -> None:
    assert levels(codec, codec.encode(PICTURE, max_bytes=10**7)) == (0, 255)


def test_low_targets_code_a_smaller_picture(codec: Codec) -> None:
    scales = [levels(codec, codec.encode(PICTURE, max_bytes=n))[0] for n in (60, 120, 500, 2000)]
    assert scales == sorted(scales, reverse=True)
    assert scales[0] > 0 and scales[-1] == 0


def test_a_target_too_small_names_one_that_is_not(codec: Codec) -> None:
    with pytest.raises(TargetError, match=r"10 bytes are too few: .* has (\d+) bytes") as caught:
        codec.encode(PICTURE, max_bytes=10)
    smallest = caught.value.smallest
    assert f" {smallest} " in str(caught.value)
    assert len(codec.encode(PICTURE, max_bytes=smallest)) == smallest
    with pytest.raises(TargetError):
        codec.encode(PICTURE, max_bytes=smallest - 1)
    with pytest.raises(TargetError, match="at this scale"):
        codec.encode(PICTURE, max_bytes=smallest, scale=1)


def test_without_a_target_the_smallest_file_will_do(codec: Codec) -> None:
    picture = photo(40, 40)
    data = codec.encode(picture)
    assert len(data) * 8 > 0.02 * 1600
    with pytest.raises(TargetError) as caught:
        codec.encode(picture, bpp=0.02)
    assert caught.value.smallest == len(data)


@pytest.mark.parametrize(
    "arguments",
    [
        {"quality": 50, "bpp": 0.02},
        {"bpp": 0.02, "max_bytes": 100},
        {"quality": -1},
        {"quality": float("nan")},
        {"bpp": float("inf")},
        {"bpp": float("nan")},
        {"bpp": -0.01},
        {"bpp": 0},
        {"max_bytes": -1},
        {"max_bytes": 100.5},
        {"scale": 5},
        {"scale": "huge"},
    ],
)
def test_arguments_out_of_range(codec: Codec, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        codec.encode(PICTURE, **arguments)  # type: ignore[arg-type]


def test_arguments_of_the_codec() -> None:
    with pytest.raises(ValueError, match="threads"):
        Codec(threads=0)
    with pytest.raises(ValueError, match="max_pixels"):
        Codec(max_pixels=0)


# --- module-level functions


def test_the_package_encodes_and_decodes(
    nano_weights: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprdiff.codec, "_default", Codec(nano_weights, threads=1))
    assert sprdiff.encode(PICTURE, quality=50) == data
    assert sprdiff.decode(data, realism=0.5).size == (384, 256)
    assert sprdiff.codec.default_codec() is sprdiff.codec.default_codec()


def test_importing_the_codec_loads_no_network_runtime() -> None:
    script = "import sys, sprdiff.codec; print({'torch', 'onnxruntime'} & set(sys.modules))"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], check=True, env=environment, stdout=subprocess.PIPE)
    assert done.stdout.decode().strip() == "set()"
