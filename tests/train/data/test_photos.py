"""Tests of photographs for training: they are decoded once, and cropped and changed as seed, step and process
say."""

from __future__ import annotations

import io
import logging
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from conftest import photo
from sprdiff.errors import TrainingError
from sprdiff.train.data.photos import CropSampler, holdout, open_store
from training_helpers import memory_store, write_photos


def write_shard(path: Path, names: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return path


def png(size: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(size, size, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def test_folders_and_shards(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", count=2)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "UPPER.PNG").write_bytes(png(70, 5))
    (folder / "notes.txt").write_text("not a photo")
    shard = write_shard(
        tmp_path / "shard.tar", {"a/x.png": png(80, 6), "a/x.json": b"{}", "y.jpg": png(90, 7)}
    )
    store = open_store([folder, shard], tmp_path / "cache", [])
    assert store.names == ("UPPER.PNG", "made-0.png", "made-1.png", "x.png", "y.jpg")
    assert np.array_equal(store.photo(1), photo(64, 64, 0)) and np.array_equal(
        store.photo(3), photo(80, 80, 6)
    )
    assert store.shapes.tolist() == [[70, 70], [64, 64], [64, 64], [80, 80], [90, 90]]


def test_photographs_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = write_photos(tmp_path / "photos"), tmp_path / "cache"
    open_store([folder], cache, [])
    with monkeypatch.context() as patch:
        patch.setattr("sprdiff.train.data.photos.open_rgb", None)
        assert len(open_store([folder], cache, [])) == 2
    (folder / "new.png").write_bytes(png(64, 9))
    assert len(open_store([folder], cache, [])) == 3
    assert not [p for p in cache.iterdir() if p.suffix not in (".u8", ".json")]


def test_photographs_keep_their_size(tmp_path: Path) -> None:
    """Crops of them have to look like what is coded at its own size."""
    Image.new("RGB", (1800, 900)).save(tmp_path / "large.png")
    assert open_store([tmp_path], tmp_path / "cache", []).shapes.tolist() == [[900, 1800]]


def test_sources_are_left_out_by_prefix(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", count=2)
    (folder / "flickr_1.png").write_bytes(png(64, 9))
    assert open_store([folder], tmp_path / "cache", ["flickr_", "other"]).names == (
        "made-0.png",
        "made-1.png",
    )
    with pytest.raises(TrainingError, match="left after --exclude"):
        open_store([folder], tmp_path / "cache", ["flickr_", "made"])


def test_corrupt_photographs_are_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = png(64, 1)
    shard = write_shard(tmp_path / "s.tar", {"a.png": whole[: len(whole) // 2], "b.png": b"", "c.png": whole})
    with caplog.at_level(logging.WARNING):
        assert open_store([shard], tmp_path / "cache", []).names == ("c.png",)
    assert "skipped a.png" in caplog.text and "skipped b.png" in caplog.text


def test_sources_without_photographs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.tar").write_bytes(b"no shard" * 100)
    (tmp_path / "broken.png").write_bytes(b"no photo")
    cut = write_shard(tmp_path / "whole.tar", {"a.png": png(64, 1)}).read_bytes()[:1000]
    (tmp_path / "cut.tar").write_bytes(cut)
    for name, message in (
        ("empty", "no photographs"),
        ("missing", "there is no folder"),
        ("broken.tar", "broken.tar is not a readable shard"),
        ("cut.tar", "cut.tar is not a readable shard"),
        ("broken.png", "none of the files"),
    ):
        with pytest.raises(TrainingError, match=message):
            open_store([tmp_path / name], tmp_path / "cache", [])
    assert not list((tmp_path / "cache").glob("*.part"))


def test_crops_depend_on_seed_step_and_rank_alone() -> None:
    store = memory_store([photo(200, 300, 1), photo(150, 90, 2)])
    sampler = CropSampler(store, 64, seed=3)
    first = sampler.batch(5, 1, 4)
    assert (
        first.shape == (4, 3, 64, 64)
        and first.dtype == torch.float32
        and 0 <= first.min() <= first.max() <= 1
    )
    sampler.batch(6, 0, 4)
    assert torch.equal(sampler.batch(5, 1, 4), first)
    assert torch.equal(CropSampler(store, 64, seed=3).batch(5, 1, 4), first)
    for other in (sampler.batch(6, 1, 4), sampler.batch(5, 0, 4), CropSampler(store, 64, 4).batch(5, 1, 4)):
        assert not torch.equal(other, first)


def test_neighbouring_steps_and_processes_share_no_crops() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    sampler = CropSampler(memory_store([noise]), 64, seed=0)
    crops = [crop for step in range(30) for rank in (0, 1) for crop in sampler.batch(step, rank, 8)]
    assert len({crop.contiguous().numpy().tobytes() for crop in crops}) >= len(crops) - 1


def test_crops_come_from_large_photos_and_are_flipped() -> None:
    small, large = np.full((64, 64, 3), 0, np.uint8), np.full((64, 192, 3), 200, np.uint8)
    large[:, ::2] = 255
    sampler = CropSampler(memory_store([small, large]), 64, seed=0)
    sampler.TURNED = sampler.RECOLOURED = sampler.REDUCED = 0.0
    crops = sampler.batch(0, 0, 400)
    from_large = crops[:, 0, 0, 0] > 0
    assert 0.68 < from_large.float().mean() < 0.82  # 3 : 1, by the area
    assert 0.4 < (crops[from_large, 0, 0, 0] == 1).float().mean() < 0.6


def plain_windows(pixels: np.ndarray, crop: int) -> torch.Tensor:
    """Return every crop of a photograph, as rows."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    return F.unfold(x, crop)[0].T


def test_without_augmentation_crops_are_windows_of_the_photograph() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3)).astype(np.uint8)
    crops = CropSampler(memory_store([pixels]), 64, seed=0, augment=False).batch(0, 0, 20)
    distance = torch.cdist(crops.flatten(1).contiguous(), plain_windows(pixels, 64))
    assert distance.min(1).values.max() < 0.1 and distance.median() > 10


def only(**shares: float) -> CropSampler:
    """Make a sampler with only one kind of change, on a photograph of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (160, 200, 3)).astype(np.uint8)
    sampler = CropSampler(memory_store([pixels]), 64, seed=0)
    for name in ("REDUCED", "TURNED", "RECOLOURED"):
        setattr(sampler, name, shares.get(name, 0.0))
    return sampler


def test_augmented_crops_keep_shape_range_and_draws() -> None:
    sampler = only(REDUCED=1.0, TURNED=1.0, RECOLOURED=1.0)
    crops = sampler.batch(7, 1, 40)
    assert crops.shape == (40, 3, 64, 64) and crops.dtype == torch.float32
    assert crops.is_contiguous(memory_format=torch.channels_last)
    assert crops.min() >= 0 and crops.max() <= 1 and bool(torch.isfinite(crops).all())
    assert torch.equal(only(REDUCED=1.0, TURNED=1.0, RECOLOURED=1.0).batch(7, 1, 40), crops)


def test_reduced_crops_are_larger_parts_made_smaller() -> None:
    """Noise has less contrast the more it is reduced; what is not reduced keeps all of it."""
    reduced, native = (only(REDUCED=share).batch(0, 0, 60).std((1, 2, 3)) for share in (1.0, 0.0))
    assert native.min() > 0.27
    assert (
        reduced.min() < 0.17 and reduced.max() > 0.22 and float(reduced.mean()) < 0.9 * float(native.mean())
    )
    half = only(REDUCED=0.5).batch(0, 0, 200).std((1, 2, 3)) < 0.27
    assert 0.3 < half.float().mean() < 0.6


def test_a_reduced_part_fits_into_the_smallest_photograph() -> None:
    sampler = CropSampler(memory_store([photo(65, 300)]), 64, seed=0)
    sampler.REDUCED = 1.0
    assert sampler.batch(0, 0, 50).shape == (50, 3, 64, 64)


def test_crops_are_turned_and_recoloured() -> None:
    """A photograph whose rows are all alike shows a turn, and one of even grey shows a change of colour."""
    rows = np.broadcast_to(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (128, 128, 3)).copy()
    sampler = CropSampler(memory_store([rows]), 64, seed=0)
    sampler.RECOLOURED = sampler.REDUCED = 0.0
    crops = sampler.batch(0, 0, 300)
    vertical = crops.std(2).amax((1, 2)) > 1e-3
    assert 0.12 < vertical.float().mean() < 0.28  # turned by a quarter or three, of 30% turned at all
    grey = CropSampler(memory_store([np.full((64, 64, 3), 128, np.uint8)]), 64, seed=0)
    means = grey.batch(0, 0, 200).mean((2, 3))
    changed = (means - 128 / 255).abs().amax(1) > 1e-3
    assert 0.4 < changed.float().mean() < 0.6
    assert 0.3 < means.min() < means.max() < 0.7
    assert (means.amax(1) - means.amin(1)).max() > 0.01, "colours do not change"


def test_too_small_photographs_are_passed_over() -> None:
    sampler = CropSampler(memory_store([photo(63, 500), photo(64, 64)]), 64, seed=0)
    assert len(sampler.store) == 1
    with pytest.raises(TrainingError, match="at least 128"):
        CropSampler(memory_store([photo(64, 64)]), 128, seed=0)


def test_holdout_splits_by_name() -> None:
    store = replace(memory_store([photo(8, 8)] * 300), names=tuple(f"{i}.png" for i in range(300)))
    train, valid = holdout(store)
    assert set(train.names) | set(valid.names) == set(store.names) and not set(train.names) & set(valid.names)
    assert 1 <= len(valid) <= 15
    again, _ = holdout(store.select(np.arange(300) % 2 == 0))
    assert set(again.names) <= set(train.names)
    assert [len(s) for s in holdout(memory_store([photo(8, 8)]))] == [1, 1]
