"""Tests of pretrained parts of preset `sd`: they are found, pinned, hashed, and loaded strictly or
refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from sd_helpers import COMMIT, SMALL, cache, change, write_semantic
from sprdiff import WeightsError
from sprdiff.models.stored import entropy_arrays
from sprdiff.sd.hub import Source, variant_of
from sprdiff.sd.loading import load_base, load_semantic
from sprdiff.sd.model import build
from sprdiff.sd.pretrained import load, save

pytest_plugins = ("sd_fixtures",)


# ---------------------------------------------------------------------------- folders


def test_sources_name_every_file(made: Path) -> None:
    source = load_base(str(made / "base")).source
    assert source.revision is None and sorted(source.files) == [
        "scheduler/scheduler_config.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    data = (made / "base" / "unet" / "config.json").read_bytes()
    assert source.files["unet/config.json"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("file", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_missing_files_are_named(parts: Path, part: str, file: str) -> None:
    (parts / "base" / part / file).unlink()
    with pytest.raises(WeightsError, match=f"lacks the file {part}/{file}"):
        load_base(str(parts / "base"))


def test_old_names_of_a_vae_s_attention(parts: Path) -> None:
    """Stable Diffusion 1.x was published before diffusers renamed these weights."""
    path = parts / "base" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state, renamed = load_file(path), {}
    for name, value in state.items():
        new = next((name.replace(k, v) for k, v in old.items() if f".{k}." in name), name)
        renamed[new] = value
    assert set(renamed) != set(state)
    save_file(renamed, path, metadata={"format": "pt"})
    loaded = load_base(str(parts / "base")).vae.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_missing_scheduler(parts: Path) -> None:
    (parts / "base" / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks the file scheduler/scheduler_config\.json"):
        load_base(str(parts / "base"))


def test_pickles_are_refused(parts: Path) -> None:
    weights = parts / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(WeightsError, match=r"unet/\*\.bin only, which can run code"):
        load_base(str(parts / "base"))


def test_shards(parts: Path) -> None:
    folder = parts / "semantic"
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: state[key] for key in keys}, folder / file, metadata={"format": "pt"})
    where = {key: file for file, keys in shards.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    whole = load_semantic(str(folder)).backbone.state_dict()
    (folder / "model.safetensors").unlink()
    loaded = load_semantic(str(folder))
    assert all(torch.equal(value, whole[key]) for key, value in loaded.backbone.state_dict().items())
    assert set(shards) < set(loaded.source.files)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks the file model-00002-of-00002\.safetensors, which"):
        load_semantic(str(folder))


# ---------------------------------------------------------------------------- variants


def as_variant(folder: Path, *, keep: bool = False) -> None:
    """Give every file of weights the name that it has in a repository of float16 weights."""
    for path in folder.rglob("*.safetensors"):
        half = {name: value.half() for name, value in load_file(path).items()}
        save_file(half, path.with_name(f"{path.stem}.fp16.safetensors"), metadata={"format": "pt"})
        if not keep:
            path.unlink()


def test_a_repository_of_float16_alone(parts: Path) -> None:
    as_variant(parts / "base")
    with pytest.raises(WeightsError, match=r"in the variant fp16 only: give --variant fp16"):
        load_base(str(parts / "base"))
    base = load_base(str(parts / "base"), variant="fp16")
    assert {p.dtype for p in base.unet.parameters()} == {torch.float32}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in base.source.files
    assert variant_of(base.source) == "fp16"
    with pytest.raises(
        WeightsError, match=r"no variant bf16 of unet|no variant bf16 of vae|in the variant fp16 only"
    ):
        load_base(str(parts / "base"), variant="bf16")


def test_a_variant_is_pinned_with_its_files(parts: Path, tmp_path: Path) -> None:
    as_variant(parts / "base", keep=True)
    model = build(
        load_base(str(parts / "base"), variant="fp16"), load_semantic(str(parts / "semantic")), SMALL
    )
    save(tmp_path / "out", model, entropy_arrays(model.latent_codec))
    assert load(tmp_path / "out", device="cpu").weights_hash
    assert variant_of(load_base(str(parts / "base")).source) is None
    (parts / "base" / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"has no variant fp16 of unet/diffusion_pytorch_model: leave it out"
    ):
        load_base(str(parts / "base"), variant="fp16")


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        (["model.safetensors"], None),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], None),
        (["unet/diffusion_pytorch_model.fp16.safetensors"], "fp16"),
        (["unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors"], "fp16"),
        (["unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors"], "fp16"),
    ],
)
def test_names_of_variants(files: list[str], variant: str | None) -> None:
    assert variant_of(Source("x", None, Path("x"), dict.fromkeys(files, "00"))) == variant


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a transformer": (
        "unet",
        {"_class_name": "SD3Transformer2DModel"},
        "'SD3Transformer2DModel' but UNet2D",
    ),
    "another vae": (
        "vae",
        {"_class_name": "AutoencoderTiny"},
        "'AutoencoderTiny' but AutoencoderKL is needed",
    ),
    "wide latent": ("vae", {"latent_channels": 16}, "in_channels are 4 but the VAE's latent has 16"),
    "inpainting": ("unet", {"in_channels": 9}, "in_channels are 9 but the VAE's latent has 4"),
    "variance": ("unet", {"out_channels": 8}, "out_channels are 8"),
    "sdxl": ("unet", {"addition_embed_type": "text_time"}, "has addition_embed_type, as SDXL"),
    "classes": ("unet", {"class_embed_type": "timestep"}, "has class_embed_type"),
    "coarse vae": ("vae", {"block_out_channels": [8, 8, 8]}, "at 1/4 of the image but 1/8 is needed"),
    "deep unet": ("unet", {"block_out_channels": [8] * 5}, "more than three times"),
    "flow": ("scheduler", {"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'"),
    "cosine": ("scheduler", {"beta_schedule": "squaredcos_cap_v2"}, "beta schedule is 'squaredcos_cap_v2'"),
    "no number": ("scheduler", {"num_train_timesteps": "many"}, "cannot be computed"),
    "no list": ("vae", {"block_out_channels": 8}, "is no list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_kinds_of_base(parts: Path, case: str) -> None:
    part, values, message = WRONG[case]
    change(
        parts / "base" / part / ("scheduler_config.json" if part == "scheduler" else "config.json"), **values
    )
    with pytest.raises(WeightsError, match=message) as caught:
        load_base(str(parts / "base"))
    assert "\n" not in str(caught.value)


def test_wrong_kinds_of_semantic_model(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="patches of 16 pixels but 14 are needed"):
        load_semantic(str(write_semantic(tmp_path / "p16", patch=16)))
    change(parts / "semantic" / "config.json", model_type="clip_vision_model")
    with pytest.raises(WeightsError, match="'clip_vision_model' but dinov2 is needed"):
        load_semantic(str(parts / "semantic"))


def test_damaged_json(parts: Path) -> None:
    (parts / "base" / "unet" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not a readable JSON file"):
        load_base(str(parts / "base"))
    (parts / "semantic" / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="must hold one JSON object"):
        load_semantic(str(parts / "semantic"))


@pytest.mark.parametrize(("part", "file"), [("base", "unet/diffusion_pytorch_model"), ("semantic", "model")])
def test_weights_that_are_missing_or_damaged(parts: Path, part: str, file: str) -> None:
    path = parts / part / f"{file}.safetensors"
    state = load_file(path)
    name = next(key for key in sorted(state) if key.endswith("weight"))
    load_part = load_base if part == "base" else load_semantic
    save_file({key: value for key, value in state.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 1 weights"):
        load_part(str(parts / part))
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_part(str(parts / part))


# ---------------------------------------------------------------------------- the hub


def test_a_cached_model_works_offline(parts: Path) -> None:
    cache(parts / "base", "someone/some-base", parts)
    source = load_base("someone/some-base").source
    assert source.name == "someone/some-base" and source.revision == COMMIT
    assert load_base("someone/some-base", COMMIT).source.files == source.files
    assert load_base(f"someone/some-base@{COMMIT}").source == source
    with pytest.raises(WeightsError, match="not cached and the hub cannot be reached"):
        load_base("someone/some-base", "f" * 40)


def test_the_hub_cannot_be_reached() -> None:
    with pytest.raises(
        WeightsError, match=r"stabilityai/sd-turbo is not cached and the hub cannot be reached"
    ):
        load_base("stabilityai/sd-turbo")


def test_what_is_neither_folder_nor_id(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="neither a folder nor the id"):
        load_base(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.RepositoryNotFoundError, "is not on the hub"),
        (errors.GatedRepoError, "must be asked for"),
        (errors.RevisionNotFoundError, "has no revision abc"),
        (ConnectionError, "cannot be reached"),
    ],
)
def test_answers_of_the_hub(monkeypatch: pytest.MonkeyPatch, kind: type[Exception], message: str) -> None:
    def fail(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        error = kind.__new__(kind)
        Exception.__init__(error, "several\nlines")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(WeightsError, match=message) as caught:
        load_semantic("someone/some-model", "abc")
    assert "\n" not in str(caught.value)


def test_only_what_is_used_is_fetched(monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(made / "base")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    load_base("someone/some-base", "v1")
    assert asked["name"] == "someone/some-base" and asked["revision"] == "v1"
    patterns = asked["allow_patterns"]
    assert (
        "unet/diffusion_pytorch_model.safetensors" in patterns
        and "scheduler/scheduler_config.json" in patterns
    )
    assert not any(".bin" in p or "fp16" in p or p.startswith(("text", "*")) for p in patterns)
