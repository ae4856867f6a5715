"""Tests of shards: they are packed deterministically and resumably, found anywhere, and cropped as a pure
function of the step."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photo
from sprdiff import cli
from sprdiff.common.files import write_atomic
from sprdiff.errors import OutputError, TrainingError
from sprdiff.train.data import pack as packing
from sprdiff.train.data.pack import Packing, pack
from sprdiff.train.data.remote import ShardCache, expand, is_remote
from sprdiff.train.data.shards import DRAWS, ShardCrops, held_out, open_shard
from training_helpers import write_photos
from web_helpers import served

SMALL = Packing(shard_size=30_000, short_side=100, min_side=64)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack six photographs into several shards."""
    folder = tmp_path_factory.mktemp("shards")
    pack(write_photos(folder / "photos", count=6, size=96), folder / "packed", SMALL)
    assert len(list((folder / "packed").glob("*.tar"))) > 2
    return folder / "packed"


@pytest.fixture
def web(shards: Path) -> Iterator[str]:
    """Serve the shards from a server of this machine."""
    with served(shards) as address:
        yield address


def crops(
    sources: list[Path | str], cache: Path, crop: int = 64, seed: int = 0, **options: Any
) -> ShardCrops:
    return ShardCrops([str(s) for s in sources], ShardCache(cache), crop, seed, workers=1, **options)


# ---------------------------------------------------------------------------- packing


def test_large_photographs_become_tiles(tmp_path: Path) -> None:
    """A crop then costs the decoding of a tile: 768 pixels a side, where photographs have 1536 and more."""
    (tmp_path / "in").mkdir()
    whole = photo(200, 330)
    Image.fromarray(whole).save(tmp_path / "in" / "large~1.png")
    Image.fromarray(photo(100, 128, 1)).save(tmp_path / "in" / "small.png")
    done = pack(tmp_path / "in", tmp_path / "out", Packing(short_side=0, min_side=64, tile=128))
    shard = open_shard("x", tmp_path / "out" / "photos-000000.tar")
    tiles = {n: np.asarray(Image.open(io.BytesIO(shard.read(i)))) for i, n in enumerate(shard.names)}
    assert done.photos == len(tiles) == 7 and done.left_out == 0
    assert tiles.pop("small.png").shape == (100, 128, 3), "what is no larger than a tile is copied as it is"
    assert set(tiles) == {f"large_1~{i}.jpg" for i in range(6)}
    assert {tile.shape for tile in tiles.values()} == {(128, 128, 3)}
    for i, (top, left) in enumerate((t, l) for t in (0, 72) for l in (0, 101, 202)):
        part = whole[top : top + 128, left : left + 128].astype(int)
        assert np.abs(tiles[f"large_1~{i}.jpg"] - part).mean() < 4
    kept = {held_out(name) for name in tiles}
    assert len(kept) == 1 and kept == {held_out("large_1")}, "tiles of one photograph stay together"
    with pytest.raises(TrainingError, match="tiles of 100 pixels are smaller"):
        Packing(min_side=128, tile=100)


def test_batches_are_decoded_ahead(shards: Path, tmp_path: Path) -> None:
    found, fresh = crops([shards], tmp_path), crops([shards], tmp_path)
    first = found.batch(3, 0, 2)
    assert {key[0] for key in found.ahead} == {4, 5}
    waiting = found.ahead[4, 0, 2]
    assert torch.equal(found.batch(4, 0, 2), fresh.batch(4, 0, 2)) and (4, 0, 2) not in found.ahead
    assert all(future.done() for future in waiting)
    assert torch.equal(found.batch(3, 0, 2), first), (
        "a batch is a function of its number, whatever was asked before"
    )
    assert {key[0] for key in found.ahead} == {4, 5}


def test_packing_copies_reduces_and_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_photos(tmp_path / "in", count=2)
    (folder / "deep.er").mkdir()
    Image.fromarray(photo(200, 300)).save(folder / "deep.er" / "a.b.JPG", quality=90)
    Image.fromarray(photo(70, 80)).save(folder / "x.bmp")
    Image.fromarray(photo(70, 80, 1)).save(folder / "x.png")
    (folder / "broken.png").write_bytes(b"no photo")
    write_photos(folder / "small", count=1, size=20)
    with caplog.at_level(logging.WARNING):
        done = pack(folder, tmp_path / "out", Packing(short_side=100, min_side=64))
    assert (done.photos, done.shards, done.left_out) == (5, 1, 2)
    assert "broken.png" in caplog.text and "20 pixels" in caplog.text
    with tarfile.open(tmp_path / "out" / "photos-000000.tar") as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        assert all(m.mtime == m.uid == 0 for m in tar.getmembers())
    assert set(found) in (  # the order of both x is that of their hashes
        {"made-0.png", "made-1.png", "deep_er_a_b.jpg", "x.png", "x_bmp.png"},
        {"made-0.png", "made-1.png", "deep_er_a_b.jpg", "x.png", "x_png.png"},
    )
    assert found["made-0.png"] == (folder / "made-0.png").read_bytes()
    assert Image.open(io.BytesIO(found["deep_er_a_b.jpg"])).size == (150, 100)
    assert len({name.split(".")[0] for name in found}) == 5, (
        "samples of one key would be one sample to WebDataset"
    )


def test_packing_is_deterministic_and_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_photos(tmp_path / "in", count=6, size=96)
    pack(folder, tmp_path / "straight", SMALL)
    write = write_atomic

    def killed(path: Path, data: bytes, *, force: bool) -> None:
        if path.name == "photos-000002.tar":
            raise KeyboardInterrupt
        write(path, data, force=force)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "write_atomic", killed)
        pack(folder, tmp_path / "killed", SMALL)
    assert len(json.loads((tmp_path / "killed" / "pack.json").read_text())["shards"]) == 2
    seen: list[int] = []
    pack(folder, tmp_path / "killed", SMALL, workers=1, advance=lambda done, total: seen.append(done))
    assert seen[0] > 1, "what is packed was packed again"
    straight, again = (
        {p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("straight", "killed")
    )
    assert straight == again and len(straight) > 3


def test_packing_refuses(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "in", count=2)
    with pytest.raises(TrainingError, match="there is no folder"):
        pack(tmp_path / "missing", tmp_path / "out", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="holds no photographs"):
        pack(tmp_path / "empty", tmp_path / "out", SMALL)
    with pytest.raises(TrainingError, match="no usable photograph"):
        pack(folder, tmp_path / "none", Packing(min_side=100))
    pack(folder, tmp_path / "out", SMALL)
    with pytest.raises(TrainingError, match="packed from other photographs or in another way"):
        pack(folder, tmp_path / "out", Packing(min_side=64))
    write_photos(folder, count=3)
    with pytest.raises(TrainingError, match="packed from other photographs"):
        pack(folder, tmp_path / "out", SMALL)
    (tmp_path / "out" / "pack.json").write_text("{")
    with pytest.raises(TrainingError, match="not the index"):
        pack(folder, tmp_path / "out", SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        pack(folder, tmp_path / "file", SMALL)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_photos(tmp_path / "in", count=2)
    out = str(tmp_path / "out")
    assert cli.main(["data", "pack", str(folder), out, "--min-side", "64", "--shard-size", "1K"]) == 0
    assert "2 files in 2 shards" in capsys.readouterr().out
    assert cli.main(["data", "pack", str(folder), out, "--shard-size", "much"]) == 2
    assert cli.main(["data", "pack", str(tmp_path / "missing"), out]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_options_of_preset_sd_are_refused_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "pixel", "--out", str(tmp_path), "--base", "stabilityai/sd-turbo"]) == 1
    assert "need --preset sd" in capsys.readouterr().err


def test_webdataset_reads_the_shards(shards: Path) -> None:
    readers = pytest.importorskip("webdataset.tariterators")
    samples = []
    for path in shards.glob("*.tar"):
        with path.open("rb") as stream:  # the library's own opener leaves files open
            source = [{"url": path.name, "stream": stream}]
            samples += list(readers.group_by_keys(readers.tar_file_expander(source)))
    assert sorted(s["__key__"] for s in samples) == [f"made-{i}" for i in range(6)] and all(
        s["png"] for s in samples
    )


# ---------------------------------------------------------------------------- sources


def test_names_are_written_out(shards: Path) -> None:
    assert expand(["s3://a/b-{008..010}.tar"]) == ["s3://a/b-008.tar", "s3://a/b-009.tar", "s3://a/b-010.tar"]
    assert expand([str(shards)]) == sorted(str(p) for p in shards.glob("*.tar"))
    assert is_remote("pipe:cat x.tar") and not is_remote("C:/x.tar") and not is_remote("a/b.tar")
    with pytest.raises(TrainingError, match="there is no folder or shard"):
        expand([str(shards / "none.tar")])
    with pytest.raises(TrainingError, match="sprdiff data pack"):
        expand([str(shards.parent / "photos")])


def test_shards_come_from_anywhere(shards: Path, web: str, tmp_path: Path) -> None:
    local = sorted(shards.glob("*.tar"))
    expected = crops(list(local), tmp_path / "none").batch(0, 0, 4)
    served = [f"{web}/{p.name}" for p in local]
    piped = [f"pipe:cat {p}" for p in local]
    for sources in (served, piped, [f"file://{p}" for p in local]):
        found = crops(list(sources), tmp_path / sources[0][:4])
        assert torch.equal(found.batch(0, 0, 4), expected)
        found.close()
    assert not list((tmp_path / "http").glob("*.part")) and len(list((tmp_path / "http").glob("*.tar"))) > 1
    assert not (tmp_path / "none").exists(), "what lies here already needs no copy"


def test_a_shard_that_cannot_be_fetched(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sprdiff.common.remote.time.sleep", lambda seconds: None)
    for source, message in (
        (f"{web}/none.tar", "cannot be reached"),
        ("pipe:false", "cannot be fetched .*exit status 1"),
        ("strange://x/y.tar", "strange"),
    ):
        found = crops([source], tmp_path)
        with pytest.raises(TrainingError, match=message):
            found.batch(0, 0, 1)
        found.close()
    assert not list(tmp_path.iterdir())


def test_the_cache_is_bounded(shards: Path, tmp_path: Path) -> None:
    local = sorted(shards.glob("*.tar"))
    cache = ShardCache(tmp_path, limit=local[0].stat().st_size + local[1].stat().st_size)
    kept = [cache.path(f"pipe:cat {p}") for p in local]
    assert kept[-1].exists() and not kept[0].exists()
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= cache.limit


def test_damaged_shards(shards: Path, tmp_path: Path) -> None:
    whole = next(shards.glob("*.tar")).read_bytes()
    for name, data, message in (
        ("text.tar", b"no shard" * 100, "not a readable shard"),
        ("cut.tar", whole[:1500], "cut"),
        ("empty.tar", bytes(10240), "holds no photographs"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TrainingError, match=message):
            open_shard(name, tmp_path / name)


# ---------------------------------------------------------------------------- crops


def test_crops_depend_on_seed_step_and_rank_alone(shards: Path, tmp_path: Path) -> None:
    first = crops([shards], tmp_path, seed=3, world=2)
    batch = first.batch(5, 1, 4)
    assert (
        batch.shape == (4, 3, 64, 64)
        and batch.dtype == torch.float32
        and 0 <= batch.min() <= batch.max() <= 1
    )
    first.batch(6, 0, 4)
    assert torch.equal(first.batch(5, 1, 4), batch)
    again = crops([shards], tmp_path, seed=3, world=2)
    assert torch.equal(again.batch(4, 1, 4), first.batch(4, 1, 4)) and torch.equal(
        again.batch(5, 1, 4), batch
    )
    for other in (
        first.batch(6, 1, 4),
        first.batch(5, 0, 4),
        crops([shards], tmp_path, seed=4).batch(5, 1, 4),
    ):
        assert not torch.equal(other, batch)


def test_every_shard_and_photograph_is_visited(shards: Path, tmp_path: Path) -> None:
    found = crops([shards], tmp_path, world=2)
    count = len(found.sources)
    visits = [found._number(visit, lane) for visit in range(count) for lane in range(2 * found.lanes)]
    assert {visits.count(number) for number in range(count)} == {2 * found.lanes}
    whole = crops([shards], tmp_path, crop=96)
    seen = {
        whole._crop(lane, draw, 0).tobytes() for lane in range(4) for draw in range(0, 5 * DRAWS, DRAWS // 4)
    }
    assert len(seen) == 12, "six photographs, each either way round"


def test_crops_differ_from_each_other(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "noise.png", compress_level=1)
    pack(tmp_path / "in", tmp_path / "out", Packing())
    found = crops([tmp_path / "out"], tmp_path / "cache")
    batches = [found.batch(step, rank, 3).numpy() for step in range(3) for rank in (0, 1)]
    assert len({crop.tobytes() for batch in batches for crop in batch}) == 18


def test_photographs_are_passed_over(shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TrainingError, match="at least 128"):
        crops([shards], tmp_path, crop=128).batch(0, 0, 1)
    with pytest.raises(TrainingError, match="left after --exclude"):
        crops([shards], tmp_path, exclude=["made"]).batch(0, 0, 1)
    good = io.BytesIO()
    Image.fromarray(photo(64, 64)).save(good, "PNG")
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name, data in (
            ("bad.png", good.getvalue()[:300]),
            ("good.png", good.getvalue()),
            ("x.json", b"{}"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = crops([tmp_path / "some.tar"], tmp_path).batch(0, 0, 4)
    assert len({min(c.tobytes() for c in (p.numpy(), p.flip(2).numpy())) for p in found}) == 1
    assert "skipped bad.png" in caplog.text


def test_some_photographs_are_kept_for_validation(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sprdiff.train.data.shards.held_out", lambda name: name in ("made-1.png", "made-4.png")
    )
    found = crops([shards], tmp_path, crop=96, hold_out=True)
    store = found.validation(12)
    assert set(store.names) == {"made-1.png", "made-4.png"} and np.array_equal(
        store.photo(store.names.index("made-4.png")), photo(96, 96, 4)
    )
    drawn = {
        found._crop(lane, draw, 0).tobytes() for lane in range(4) for draw in range(0, 4 * DRAWS, DRAWS // 4)
    }
    alone = {
        number for number in range(len(found.sources)) if set(found._shard(number).names) <= set(store.names)
    }
    assert alone or not drawn & {photo(96, 96, seed).tobytes() for seed in (1, 4)}
    monkeypatch.setattr("sprdiff.train.data.shards.held_out", lambda name: False)
    assert len(crops([shards], tmp_path, hold_out=True).validation(12)) == 2
