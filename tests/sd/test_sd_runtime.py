"""Tests of preset `sd` as a codec: files, tiles and their seams, colours, and what the runtime refuses."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from conftest import photo
from sd_helpers import show, write_trained_folder
from sprdiff import BitstreamError, Codec, DeviceError, DialError, ModelMismatchError, info
from sprdiff.fileinfo import model_info
from sprdiff.format.container import parse_file
from sprdiff.runtime.blend import cell_means, match_colours, parts
from sprdiff.sd.model import SDSPRDiff
from sprdiff.sd.pretrained import load
from sprdiff.sd.runtime import TorchRuntime

SIZE = (200, 328)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained_folder(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def runtime(folder: Path) -> TorchRuntime:
    return load(folder, device="cpu")


@pytest.fixture(scope="module")
def codec(runtime: TorchRuntime) -> Codec:
    return Codec.from_runtime(runtime)


@pytest.fixture(scope="module")
def data(codec: Codec) -> bytes:
    return codec.encode(photo(*SIZE), quality=40)


def tiled(runtime: TorchRuntime, side: int) -> TorchRuntime:
    return TorchRuntime(runtime.model, runtime.entropy, runtime.manifest, device="cpu", tile=side)


# ---------------------------------------------------------------------------- files


def test_files_name_preset_and_grid(codec: Codec, data: bytes, folder: Path) -> None:
    header = parse_file(data).header
    assert header.preset_id == 2 and header.latent_size(codec.runtime.entropy.stride) == (4, 6)
    assert info(data, weights=folder).weights == "at hand" and info(data, weights=folder).preset == "sd"
    assert model_info(folder).hash == codec.runtime.weights_hash.hex()
    picture = codec.decode(data)
    assert picture.size == (SIZE[1], SIZE[0]) and picture.mode == "RGB"


def test_files_are_of_format_2_and_dials_default_to_the_weights(
    folder: Path, data: bytes, tmp_path: Path
) -> None:
    assert (data[:3], data[3] >> 4) == (b"SPR", 2)
    for name in ("base", "semantic", "trained"):
        shutil.copytree(folder.parent / name, tmp_path / name)
    config = tmp_path / "trained" / "config.json"
    content = json.loads(config.read_text())
    assert (content["realism"], content["steps"], content["lambda_range"]) == (1.0, 1, [0.25, 6.0])
    config.write_text(json.dumps(content | {"realism": 0.0}))
    other = Codec.from_pretrained(tmp_path / "trained", device="cpu")
    coarse, full = (np.asarray(other.decode(data, realism=r)) for r in (0.0, 1.0))
    assert np.array_equal(np.asarray(other.decode(data)), coarse) and not np.array_equal(coarse, full)
    assert np.array_equal(np.asarray(other.decode(data, steps=1)), coarse)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 300), (257, 129)])
def test_any_size(codec: Codec, size: tuple[int, int]) -> None:
    decoded = codec.decode(codec.encode(photo(*size), quality=10))
    assert decoded.size == (size[1], size[0])


def test_targets_are_kept(codec: Codec) -> None:
    assert len(codec.encode(photo(*SIZE), max_bytes=300)) <= 300


def test_a_weights_folder_is_a_codec_by_itself(folder: Path, codec: Codec, data: bytes) -> None:
    by_folder = Codec(folder, threads=torch.get_num_threads())
    assert by_folder.encode(photo(*SIZE), quality=40) == data
    assert np.array_equal(np.asarray(by_folder.decode(data)), np.asarray(codec.decode(data)))


READER = """
import sys, numpy as np
from pathlib import Path
from sprdiff.format.container import parse_file
from sprdiff.format.entropy import EntropyModel
from sprdiff.sd.folder import read_trained, read_weights
arrays, _ = read_weights(read_trained(Path(sys.argv[1])))
parsed = parse_file(Path(sys.argv[2]).read_bytes())
model = EntropyModel(arrays)
exact = model.decode(parsed.stream, parsed.header.latent_size(model.stride), parsed.header.level).y_hat
assert "torch" not in sys.modules
np.save(sys.argv[3], exact)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_reads_the_same_integers(
    folder: Path, codec: Codec, data: bytes, tmp_path: Path, threads: str
) -> None:
    (tmp_path / "a.sprd").write_bytes(data)
    parsed = parse_file(data)
    entropy = codec.runtime.entropy
    own = entropy.decode(parsed.stream, parsed.header.latent_size(entropy.stride), parsed.header.level).y_hat
    command = [sys.executable, "-c", READER, str(folder), str(tmp_path / "a.sprd"), str(tmp_path / "y.npy")]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    subprocess.run(command, check=True, env=os.environ | limits)
    assert np.array_equal(np.load(tmp_path / "y.npy"), own)


def test_other_weights_are_named(data: bytes, tmp_path: Path, folder: Path) -> None:
    other = load(write_trained_folder(tmp_path, seed=5, parts=folder.parent), device="cpu")
    wanted = f"sd-{parse_file(data).header.tag.hex()}"
    with pytest.raises(ModelMismatchError, match=wanted):
        Codec.from_runtime(other).decode(data)
    with pytest.raises(ModelMismatchError, match=wanted):
        Codec().decode(data)


def test_damage_is_found(codec: Codec, data: bytes) -> None:
    with pytest.raises(BitstreamError, match="damaged"):
        codec.decode(data[:-1] + bytes([data[-1] ^ 1]))


# ---------------------------------------------------------------------------- dials


def test_realism_is_linear(runtime: TorchRuntime) -> None:
    y_hat = np.random.default_rng(0).normal(size=(12, 3, 4)).astype(np.float32)
    coarse, half, full = (show(runtime, y_hat, level=90, realism=r) for r in (0.0, 0.5, 1.0))
    assert not np.allclose(coarse, full, atol=0.01)
    inside = (full > 0) & (full < 1)  # colours are matched before anything is clipped
    assert np.allclose(half[inside], (0.5 * coarse + 0.5 * full)[inside], atol=1e-5)


def test_the_coarse_picture_needs_no_denoiser(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(TorchRuntime, "_denoise")
    y_hat = np.zeros((12, 1, 1), np.float32)
    picture = show(runtime, y_hat, level=0, realism=0.0, dtype=np.uint8, size=(50, 60))
    assert picture.shape == (50, 60, 3) and picture.dtype == np.uint8


def test_more_steps_are_refused(codec: Codec, data: bytes) -> None:
    with pytest.raises(DialError, match="evaluates its UNet once, not 2 times"):
        codec.decode(data, steps=2)


def test_strange_latents_give_a_picture(runtime: TorchRuntime) -> None:
    y_hat = np.full((12, 2, 2), 1e30, np.float32)
    picture = show(runtime, y_hat, level=255)
    assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1


# ---------------------------------------------------------------------------- tiles


def test_blending_weights_cover_everything() -> None:
    for size, tile, overlap, step in ((4, 8, 2, 1), (104, 96, 32, 8), (240, 96, 32, 8), (136, 96, 16, 8)):
        total, shared, last = np.zeros((size, size)), 0.0, None
        for part in parts(size, size, tile, overlap, step):
            rows, columns = part.place
            assert rows.start % step == 0 and part.weight.min() > 0
            total[part.place] += part.weight
            if last is not None and columns.start > 0:
                shared = last - columns.start
                assert shared >= overlap - step
            last = columns.stop
        assert total.min() > 0.1
    smooth = np.concatenate([p.columns for p in parts(8, 104, 96, 32, 8)])
    assert np.abs(np.diff(smooth[:96])).max() < 0.1, "a weight jumps inside a tile"


def test_tiles_are_no_larger_than_they_need_be() -> None:
    sides = {
        (p.place[0].stop - p.place[0].start, p.place[1].stop - p.place[1].start)
        for p in parts(1088, 1920, 1024, 256, 64)
    }
    assert sides == {(704, 832)}
    assert all(p.place[0].stop <= 1088 and p.place[1].stop <= 1920 for p in parts(1088, 1920, 1024, 256, 64))


def test_a_blend_of_equal_tiles_is_the_whole() -> None:
    whole = np.random.default_rng(0).random((240, 136))
    out, total = np.zeros_like(whole), np.zeros_like(whole)
    for part in parts(240, 136, 96, 32, 8):
        out[part.place] += whole[part.place] * part.weight
        total[part.place] += part.weight
    assert np.allclose(out / total, whole, atol=1e-6)


def test_colours_are_matched_without_edges() -> None:
    rng = np.random.default_rng(0)
    wanted: NDArray[np.float32] = photo(256, 320).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    detail = rng.normal(0, 0.05, wanted.shape).astype(np.float32)
    detail -= np.repeat(np.repeat(cell_means(detail, 64), 64, 1), 64, 2)
    drift = np.where(np.arange(320) < 130, 0.1, -0.1).astype(np.float32)
    picture: NDArray[np.float32] = wanted + detail + drift
    before = np.abs(cell_means(picture, 64) - cell_means(wanted, 64)).mean()
    matched = picture.copy()
    match_colours(matched, cell_means(wanted, 64), 64)
    after = np.abs(cell_means(matched, 64) - cell_means(wanted, 64)).mean()
    assert after < 0.35 * before
    assert np.abs(np.diff(matched - picture, axis=2)).max() < 0.01, "the correction has an edge"
    same = wanted.copy()
    match_colours(same, cell_means(wanted, 64), 64)
    assert np.allclose(same, wanted, atol=1e-6)


def test_tiles_that_differ_meet_without_seams(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder and denoiser make tiles dark and bright in turn; no step is larger than the ramp's."""
    tiles = itertools.count()

    def decode(self: SDSPRDiff, z0: Tensor) -> Tensor:
        return torch.full((1, 3, 8 * z0.shape[2], 8 * z0.shape[3]), 0.4 + 0.2 * (next(tiles) % 2))

    monkeypatch.setattr(SDSPRDiff, "decode_latent", decode)
    small = tiled(runtime, 192)
    picture = small._decode_latent(torch.zeros(1, 4, 32, 64))
    assert picture.min() == pytest.approx(0.4) and picture.max() == pytest.approx(0.6)
    assert max(np.abs(np.diff(picture, axis=axis)).max() for axis in (1, 2)) < 0.2 * np.pi / 2 / 64 * 1.5

    def denoise(place: tuple[slice, slice]) -> Tensor:
        return torch.full((1, 4, *(s.stop - s.start for s in place)), 0.4 + 0.2 * (next(tiles) % 2))

    latent = small._blended((32, 64), (24, 16, 8), denoise)
    assert float(latent.amax() - latent.amin()) == pytest.approx(0.2, abs=0.02)
    assert max(float(latent.diff(dim=dim).abs().max()) for dim in (2, 3)) < 0.2 * np.pi / 2 / 8 * 1.5


def test_tiles_that_drift_in_colour_are_put_right(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = itertools.count()
    decode = SDSPRDiff.decode_latent

    def drifting(self: SDSPRDiff, z0: Tensor) -> Tensor:
        return decode(self, z0) * 0.5 + 0.2 + 0.1 * (next(tiles) % 2)

    y_hat = np.random.default_rng(1).normal(size=(12, 4, 8)).astype(np.float32)
    small = tiled(runtime, 192)
    expected = cell_means(show(small, y_hat, level=100, realism=0.0).transpose(2, 0, 1), 64)
    errors = []
    for matching in (True, False):
        monkeypatch.setattr(SDSPRDiff, "decode_latent", drifting)
        if not matching:
            monkeypatch.setattr("sprdiff.sd.runtime.match_colours", lambda *_: None)
        found = show(small, y_hat, level=100).transpose(2, 0, 1)
        errors.append(float(np.abs(cell_means(found, 64) - expected).mean()))
    assert errors[0] < 0.4 * errors[1]


def test_tiling_does_change_something(runtime: TorchRuntime) -> None:
    y_hat = np.random.default_rng(1).normal(size=(12, 2, 8)).astype(np.float32)
    whole, pieces = (show(r, y_hat, level=100) for r in (runtime, tiled(runtime, 192)))
    assert 0 < np.abs(whole - pieces).mean() < 0.05


def test_the_coarse_picture_is_that_of_the_whole(runtime: TorchRuntime) -> None:
    y_hat = np.random.default_rng(1).normal(size=(12, 3, 40)).astype(np.float32)
    pictures = [show(r, y_hat, level=100, realism=0.0) for r in (runtime, tiled(runtime, 128))]
    assert np.abs(pictures[0] - pictures[1]).max() < 1 / 255


def test_tiled_analysis_is_near_that_of_the_whole(runtime: TorchRuntime) -> None:
    pixels = photo(128, 512)
    (y, z), (tiled_y, tiled_z) = (r.analyse(pixels) for r in (runtime, tiled(runtime, 256)))
    assert y.shape == tiled_y.shape == (12, 2, 8) and z.shape == tiled_z.shape == (4, 1, 2)
    assert not np.array_equal(y, tiled_y)
    assert np.abs(y - tiled_y).mean() < 0.3 * y.std()


def test_colour_comes_from_the_coarse_picture(runtime: TorchRuntime) -> None:
    y_hat = np.random.default_rng(3).normal(size=(12, 3, 4)).astype(np.float32)
    coarse, full = (show(runtime, y_hat, level=90, realism=r) for r in (0.0, 1.0))
    assert np.abs(coarse.mean((0, 1)) - full.mean((0, 1))).max() < 0.02


# ---------------------------------------------------------------------------- devices


def test_half_precision_is_near(runtime: TorchRuntime, folder: Path) -> None:
    half = load(folder, device="cpu", precision="bf16")
    assert next(half.model.denoiser.unet.parameters()).dtype == torch.bfloat16
    y_hat = np.random.default_rng(3).normal(size=(12, 2, 2)).astype(np.float32)
    full, low = (show(r, y_hat, level=90) for r in (runtime, half))
    assert np.abs(full - low).mean() < 0.05
    assert half.analyse(photo(64, 64))[0].dtype == np.float32


def test_devices_and_sizes_that_are_not_there(runtime: TorchRuntime, folder: Path) -> None:
    with pytest.raises(DeviceError, match="no device 'cuda:7'"):
        load(folder, device="cuda:7")
    with pytest.raises(ValueError, match="multiple of 64"):
        tiled(runtime, 100)
    with pytest.raises(ValueError, match="precision must be"):
        TorchRuntime(runtime.model, runtime.entropy, runtime.manifest, device="cpu", precision="int4")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("not enough memory")]
)
def test_memory_that_ends_is_told(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(TorchRuntime, "_denoise", fail)
    with pytest.raises(
        DeviceError, match=r"too little memory for tiles of 768 pixels: give a smaller tile \(tile=384"
    ):
        show(runtime, np.zeros((12, 1, 1), np.float32), level=0)


def test_other_errors_pass(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(TorchRuntime, "_denoise", fail)
    with pytest.raises(RuntimeError, match="something else"):
        show(runtime, np.zeros((12, 1, 1), np.float32), level=0)


def test_config_is_readable_json(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    assert content["preset"] == "sd" and set(content["base"]) == {"id", "revision", "files"}
