"""Tests of folders of latents: they are made from photographs and checkpoints, resumed and refreshed; what
batches of them hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sprdiff.train.latents.run
from conftest import photo
from sprdiff.cli.data import app
from sprdiff.errors import TrainingError
from sprdiff.models.config import NANO
from sprdiff.train.data.photos import CropSampler, open_store
from sprdiff.train.latents.making import make_latents
from sprdiff.train.latents.resident import ResidentLatents
from sprdiff.train.latents.run import LatentsResult, codec_of, run_latents
from sprdiff.train.latents.store import SIDE, STRIDES, VAE, LatentSampler, LatentStore
from sprdiff.train.options import LatentsOptions
from sprdiff.train.recipes import STAGES
from training_helpers import memory_store, nano_model, write_checkpoint, write_photos

pytest_plugins = ("training_fixtures",)

RECEIVER = ("x", "coarse", "f16", "f32", "level")
ALL = (*RECEIVER, *VAE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("large"), count=2, size=SIDE)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write checkpoints of a codec and of a VAE, as the stages leave them."""
    folder, model = tmp_path_factory.mktemp("parts"), nano_model()
    return tuple(
        write_checkpoint(folder / f"{name}.safetensors", model, STAGES[name].networks)
        for name in ("codec", "vae")
    )  # type: ignore[return-value]


def make(out: Path, init: list[Path], photos: Path, **changes: Any) -> LatentsResult:
    options = {
        "preset": "nano",
        "count": 6,
        "device": "cpu",
        "precision": "fp32",
        "cache": photos / "cache",
        **changes,
    }
    advance = options.pop("advance", lambda done, total: None)
    return run_latents(LatentsOptions(out=out, init=init, data=[photos], **options), advance)


def arrays(folder: Path) -> dict[str, np.ndarray]:
    return {p.stem: np.load(p) for p in folder.glob("*.npy")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, photos: Path, parts: tuple[Path, Path]) -> Path:
    out = tmp_path_factory.mktemp("made") / "latents"
    assert make(out, list(parts), photos) == LatentsResult(6, True, "fp32")
    return out


def test_arrays_are_what_the_networks_give(made: Path, photos: Path) -> None:
    found, model = arrays(made), nano_model()
    assert set(found) == set(ALL)
    assert model.triple_encoder.semantic is not None
    model.triple_encoder.semantic.load_package()  # the pretrained part is never a checkpoint's
    # The same sums in the same order.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    channels = {
        "x": 3,
        "coarse": 3,
        "f16": NANO.synthesis[1],
        "f32": NANO.synthesis[0],
        "mean": 4,
        "deviation": 4,
    }
    for name, count in channels.items():
        side = SIDE // STRIDES[name]
        assert found[name].shape == (6, side, side, count), name
    x = CropSampler(open_store([photos], photos / "cache", []), SIDE, 0).batch(0, 0, 4)
    level = torch.from_numpy(found["level"][:4]).float()
    stored = {
        n: torch.from_numpy(a[:4]).permute(0, 3, 1, 2).float() for n, a in found.items() if n != "level"
    }
    with torch.no_grad():
        r = model(x, level, hard=True).reconstruction  # through all three encoders
        mean, log_deviation = model.triple_encoder.vae(stored["x"] / 255, stored["coarse"] / 255)
    for name, image in (("x", x), ("coarse", r.coarse.clamp(0, 1))):
        assert (stored[name] / 255 - image).abs().max() < 0.51 / 255 + 1e-4
    for name, value in (("f16", r.f16), ("f32", r.f32), ("mean", mean), ("deviation", log_deviation.exp())):
        assert torch.allclose(stored[name], value, rtol=2e-3, atol=2e-3), name


def test_an_encoder_that_never_joined_is_not_asked() -> None:
    model = nano_model()
    encoder: Any = model.triple_encoder
    x, level = torch.rand(1, 3, 64, 64), torch.tensor([100.0])
    with torch.no_grad():
        encoder.fuse_vae.weight.zero_()
        encoder.fuse_semantic.weight.zero_()
        wanted = model(x, level, hard=True).reconstruction.coarse.clamp(0, 1).mul(255).round() / 255
        encoder.vae = encoder.semantic = None
        assert torch.equal(codec_of(model)(x, level)[0], wanted)


def test_a_killed_run_goes_on_to_the_same_latents(
    made: Path, tmp_path: Path, photos: Path, parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> Iterator[int]:
        for done in make_latents(*args):
            yield done
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sprdiff.train.latents.run, "make_latents", killed)
        make(tmp_path / "latents", list(parts), photos)
    assert (arrays(tmp_path / "latents")["level"] >= 0).sum() == 4
    told: list[tuple[int, int]] = []
    make(tmp_path / "latents", list(parts), photos, advance=lambda *progress: told.append(progress))
    assert told == [(6, 6), (4, 6), (6, 6)], "the codec's last crops, then the VAE's latent of all"
    again, whole = arrays(tmp_path / "latents"), arrays(made)
    assert set(again) == set(whole) and all(np.array_equal(again[n], whole[n]) for n in whole)


def test_the_vaes_latent_is_added_and_refreshed(made: Path, tmp_path: Path, parts: tuple[Path, Path]) -> None:
    out = tmp_path / "latents"
    shutil.copytree(made, out)
    before = arrays(out)
    other = write_checkpoint(tmp_path / "vae.safetensors", nano_model(seed=1), STAGES["vae"].networks)
    options = LatentsOptions(out=out, init=[other], preset="nano", vae_only=True, device="cpu")
    assert run_latents(options) == LatentsResult(6, True, "fp32")
    after = arrays(out)
    assert all(np.array_equal(after[n], before[n]) for n in RECEIVER)
    assert all(not np.array_equal(after[n], before[n]) for n in VAE)
    assert not list(out.glob("*.part*"))


def test_half_a_refresh_changes_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-written latents would be zeros, which the flow would learn without a warning."""
    out = tmp_path / "latents"
    shutil.copytree(made, out)
    before = arrays(out)
    other = write_checkpoint(tmp_path / "vae.safetensors", nano_model(seed=1), STAGES["vae"].networks)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_latents(LatentsOptions(out=out, init=[other], preset="nano", vae_only=True, device="cpu"), stop)
    after = {n: np.load(out / f"{n}.npy") for n in ALL}
    assert all(np.array_equal(after[n], before[n]) for n in ALL)


def test_what_a_folder_was_made_with_is_checked(
    made: Path, tmp_path: Path, photos: Path, parts: tuple[Path, Path]
) -> None:
    codec, _ = parts
    other = write_checkpoint(tmp_path / "other.safetensors", nano_model(seed=1), STAGES["codec"].networks)
    few = write_photos(tmp_path / "few", count=1, size=SIDE)
    bare = tmp_path / "bare"
    shutil.copytree(made, bare)
    (bare / "latents.json").unlink()
    for out, init, source, changes, message in (
        (made, codec, photos, {"seed": 1}, "made with another seed"),
        (made, codec, photos, {"count": 7}, "made with another count"),
        (made, other, photos, {}, "made with another codec"),
        (made, codec, few, {}, "made with another photographs"),
        (bare, codec, photos, {}, "holds latents but no latents.json"),
        (tmp_path / "new", parts[1], photos, {}, "need a trained latent_codec"),
        (tmp_path / "new", codec, photos, {"vae_only": True}, "need a trained triple_encoder.vae"),
        (tmp_path / "new", parts[1], photos, {"vae_only": True}, "not a folder of latents"),
        (tmp_path / "new", codec, photos, {"device": "abacus"}, "no device 'abacus'"),
        (tmp_path / "new", codec, photos, {"precision": "fp8"}, "not 'fp8'"),
    ):
        with pytest.raises(TrainingError, match=message):
            make(out, [init], source, **changes)


def test_the_command(tmp_path: Path, photos: Path, parts: tuple[Path, Path]) -> None:
    codec, vae = map(str, parts)
    out = str(tmp_path / "latents")
    common = [out, "--preset", "nano", "--device", "cpu"]
    given = ["--data", str(photos), "--count", "2", "--seed", "3", "--cache", str(photos / "cache")]
    first = CliRunner().invoke(app, ["latents", *common, *given, "--init", codec])
    assert first.exit_code == 0 and "2 crops in " in first.output and "without a VAE's latent" in first.output
    index = json.loads((tmp_path / "latents" / "latents.json").read_text())
    assert (index["count"], index["seed"]) == (2, 3) and index["precision"] in ("fp32", "bf16")
    second = CliRunner().invoke(app, ["latents", *common, "--init", vae, "--vae-only"])
    assert second.exit_code == 0 and "with the VAE's latent" in second.output
    assert len(LatentStore.open(tmp_path / "latents", ALL)) == 2


# ---------------------------------------------------------------------------- stores and batches


def test_unfinished_folders_are_refused(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "latents"
    shutil.copytree(made, out)
    (out / "mean.npy").write_bytes(b"no array")
    with pytest.raises(TrainingError, match="not a complete folder of latents"):
        LatentStore.open(out, ALL)
    (out / "mean.npy").unlink()
    with pytest.raises(TrainingError, match=r"not a complete folder of latents .*mean\.npy"):
        LatentStore.open(out, ALL)
    np.save(out / "level.npy", np.full(6, -1, np.int16))
    with pytest.raises(TrainingError, match="holds no latents yet"):
        LatentStore.open(out, RECEIVER)
    with pytest.raises(TrainingError, match="another number of crops, 6 in place of 5"):
        next(
            make_latents(lambda *_: pytest.fail("asked"), memory_store([photo(SIDE, SIDE)]), out, 5, 0, "cpu")
        )


@pytest.mark.parametrize("kind", [LatentSampler, ResidentLatents])
def test_a_batch_is_the_same_part_of_every_array(kind: Any, latents: Path) -> None:
    count, crop = 5, 64
    place = {"x": 1, "coarse": 1, "f16": 16, "f32": 32, "mean": 8, "deviation": 8}
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    store = {}
    for name, stride in place.items():
        # Every value tells where it lies: crop, row and column of the upper left pixel of its cell.
        here = [
            np.stack([np.full_like(r, i), r * stride // 32, c * stride // 32], -1)
            for i in range(count)
            for r, c in [
                (rows[: SIDE // stride, : SIDE // stride], columns[: SIDE // stride, : SIDE // stride])
            ]
        ]
        store[name] = np.stack(here).astype(np.uint8 if stride == 1 else np.float16)
    store["level"] = np.arange(count, dtype=np.int16)
    more = ("cpu",) if kind is ResidentLatents else ()
    sampler = kind(LatentStore(store), crop, 7, *more)
    batch = sampler.batch(3, 1, 8)
    for name, stride in place.items():
        values = batch[name] * (255 if stride == 1 else 1)
        assert values.shape == (8, 3, crop // stride, crop // stride) and values.dtype == torch.float32
        corner = values[:, :, 0, 0].round()
        assert torch.equal(corner[:, 0], batch["level"])
        assert torch.equal(corner, (batch["f32"][:, :, 0, 0]).round()), name
        assert torch.equal(values[:, 1:, -1, -1].round(), corner[:, 1:] + 1), name
    assert torch.equal(sampler.batch(3, 1, 8)["x"], batch["x"])
    for other in (
        sampler.batch(4, 1, 8),
        sampler.batch(3, 0, 8),
        kind(LatentStore(store), crop, 8, *more).batch(3, 1, 8),
    ):
        assert not torch.equal(other["x"], batch["x"])


def test_latents_on_a_device_are_those_on_disk(latents: Path) -> None:
    store = LatentStore.open(latents, ALL)
    here, there = (
        LatentSampler(store, 128, 3).batch(2, 0, 6),
        ResidentLatents(store, 128, 3, "cpu").batch(2, 0, 6),
    )
    assert set(here) == set(there) == set(ALL)
    assert all(torch.equal(here[n], there[n]) for n in ALL)


@pytest.mark.parametrize("crop", [0, 48, SIDE + 32])
def test_parts_must_lie_on_the_grid(crop: int, latents: Path) -> None:
    with pytest.raises(TrainingError, match="multiples of 32 up to 448"):
        LatentSampler(LatentStore.open(latents, RECEIVER), crop, 0)
