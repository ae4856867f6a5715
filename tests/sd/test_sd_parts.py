"""Pretrained parts and trained folders of preset `sd`: found, pinned, hashed, loaded strictly or refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import errors
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from conftest import photo
from sd_helpers import SMALL, small_model, write_base, write_semantic, write_trained_folder
from sprdiff import Codec, OutputError, WeightsError
from sprdiff.models.stored import entropy_arrays
from sprdiff.runtime.weights import identity
from sprdiff.sd import hub as sd_hub
from sprdiff.sd.folder import hashed_parts, read_trained, read_weights
from sprdiff.sd.hub import Source, variant_of
from sprdiff.sd.licences import LICENCES, licence_of
from sprdiff.sd.loading import load_base, load_semantic
from sprdiff.sd.model import build
from sprdiff.sd.pretrained import load, load_model, push_to_hub, save

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_trained_folder(folder)
    return folder


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> Path:
    """Copies of ``base``, ``semantic`` and ``trained`` that a test may spoil."""
    for name in ("base", "semantic", "trained"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's library sees an empty cache and does not even try to connect."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


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
    """Every file of weights under the name that a repository of float16 weights gives it."""
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
        "'SD3Transformer2DModel' where UNet2D",
    ),
    "another vae": (
        "vae",
        {"_class_name": "AutoencoderTiny"},
        "'AutoencoderTiny' where AutoencoderKL is due",
    ),
    "wide latent": ("vae", {"latent_channels": 16}, "in_channels are 4 but the VAE's latent has 16"),
    "inpainting": ("unet", {"in_channels": 9}, "in_channels are 9 but the VAE's latent has 4"),
    "variance": ("unet", {"out_channels": 8}, "out_channels are 8"),
    "sdxl": ("unet", {"addition_embed_type": "text_time"}, "has addition_embed_type, as SDXL"),
    "classes": ("unet", {"class_embed_type": "timestep"}, "has class_embed_type"),
    "coarse vae": ("vae", {"block_out_channels": [8, 8, 8]}, "at 1/4 of the image where 1/8 is due"),
    "deep unet": ("unet", {"block_out_channels": [8] * 5}, "more than three times"),
    "flow": ("scheduler", {"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'"),
    "cosine": ("scheduler", {"beta_schedule": "squaredcos_cap_v2"}, "beta schedule 'squaredcos_cap_v2'"),
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
    with pytest.raises(WeightsError, match="patches of 16 pixels where 14 are due"):
        load_semantic(str(write_semantic(tmp_path / "p16", patch=16)))
    change(parts / "semantic" / "config.json", model_type="clip_vision_model")
    with pytest.raises(WeightsError, match="'clip_vision_model' where dinov2 is due"):
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


def cache(source: Path, name: str, folder: Path) -> None:
    """What huggingface_hub leaves of a model that was fetched once."""
    root = folder / "cache" / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)


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


# ---------------------------------------------------------------------------- trained folders


def test_saved_and_loaded_make_the_same_bytes(made: Path, tmp_path: Path) -> None:
    first = Codec.from_pretrained(made / "trained", device="cpu")
    model = load_model(made / "trained")
    arrays, _ = read_weights(read_trained(made / "trained"))
    digest = save(tmp_path / "again", model, arrays, {"data": "none: random weights"})
    assert digest == first.runtime.weights_hash
    again = Codec.from_pretrained(tmp_path / "again", device="cpu")
    data = first.encode(photo(128, 192), quality=30)
    assert again.encode(photo(128, 192), quality=30) == data
    assert np.array_equal(np.asarray(first.decode(data)), np.asarray(again.decode(data)))


def test_only_what_was_trained_is_saved(made: Path) -> None:
    folder = made / "trained"
    names = set(load_file(folder / "model.safetensors"))
    assert sorted(p.name for p in folder.iterdir()) == [
        "LICENSE-weights",
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert not any(
        name.startswith(("vae_decoder.", "triple_encoder.vae.", "triple_encoder.semantic.")) for name in names
    )
    assert {"entropy.context.0.0.weight", "denoiser.unet.conv_in.weight", "synthesis.enter.weight"} <= names
    assert not any("base_layer" in name or name.startswith("latent_codec.context") for name in names)


def rewrite(folder: Path, change: Any) -> None:
    """Change the weights of a trained folder and give it the hashes that they have then."""
    trained = read_trained(folder)
    entropy, weights = read_weights(trained)
    change(weights)
    save_arrays({**weights, **{f"entropy.{k}": v for k, v in entropy.items()}}, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    content |= identity(entropy, *hashed_parts(weights, trained.sources))
    (folder / "config.json").write_text(json.dumps(content))


def test_missing_lora_keys(parts: Path) -> None:
    def drop(weights: dict[str, Any]) -> None:
        del weights[next(name for name in sorted(weights) if "lora_B" in name)]

    rewrite(parts / "trained", drop)
    with pytest.raises(WeightsError, match=r"1 weights are missing.*lora_B"):
        load(parts / "trained", device="cpu")


def test_unknown_weights(parts: Path) -> None:
    rewrite(parts / "trained", lambda weights: weights.update(extra=np.zeros(3, np.float16)))
    with pytest.raises(WeightsError, match="1 weights are unknown, extra"):
        load(parts / "trained", device="cpu")


def test_changed_weights_are_found(parts: Path) -> None:
    path = parts / "trained" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is damaged"):
        load(parts / "trained", device="cpu")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="missing or damaged"):
        load(parts / "trained", device="cpu")


def test_mismatched_tables(parts: Path) -> None:
    path = parts / "trained" / "model.safetensors"
    state = load_file(path)
    state["entropy.tables.counts"] = state["entropy.tables.counts"][:-1].clone()
    save_file(state, path)
    with pytest.raises(WeightsError, match="is damaged"):
        load(parts / "trained", device="cpu")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("entropy.gain.y", "exact part"),
        ("synthesis.enter.bias", "decoder"),
        ("denoiser.unet.conv_in.weight", "decoder"),
        ("triple_encoder.distortion.body.0.bias", "encoder"),
    ],
)
def test_each_part_has_a_hash_of_its_own(parts: Path, name: str, part: str) -> None:
    path = parts / "trained" / "model.safetensors"
    weights = load_arrays(path)
    assert name in weights, sorted(weights)
    save_arrays({**weights, name: weights[name] + weights[name].dtype.type(1)}, path)
    with pytest.raises(WeightsError, match=f"its {part} does not have the hash"):
        load(parts / "trained", device="cpu")


def test_the_hash_of_the_decoder_covers_the_base_model_and_that_of_the_exact_part_does_not(
    parts: Path,
) -> None:
    trained = read_trained(parts / "trained")
    entropy, weights = read_weights(trained)
    before = identity(entropy, *hashed_parts(weights, trained.sources))
    for part, changed in (("base", {"decoder_hash", "encoder_hash"}), ("semantic", {"encoder_hash"})):
        source = trained.sources[part]
        other = replace(source, files=source.files | {min(source.files): "ab" * 32})
        after = identity(entropy, *hashed_parts(weights, {**trained.sources, part: other}))
        assert {name for name in before if before[name] != after[name]} == changed


def test_another_base_is_refused(parts: Path, tmp_path: Path) -> None:
    write_base(tmp_path / "other", seed=3)
    with pytest.raises(WeightsError, match=r"unet/diffusion_pytorch_model\.safetensors is not the file"):
        load(parts / "trained", base=tmp_path / "other", device="cpu")
    shutil.move(parts / "base", parts / "elsewhere")
    assert load(parts / "trained", base=parts / "elsewhere", semantic=parts / "semantic", device="cpu")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 9}, "not of a trained SPRDiff that this version reads"),
        ({"format": 1}, "not of a trained SPRDiff that this version reads"),
        ({"hash": "00"}, "not the configuration"),
        ({"decoder_hash": "00"}, "not the configuration"),
        ({"tag": "beef"}, "not the configuration"),
        (
            {"serves": {"encoder": "00" * 32, "decoder": "00" * 32}},
            "its encoder serves the weights 0000, not",
        ),
        ({"steps": 0}, "not the configuration"),
        ({"realism": [0.5] * 255}, "not the configuration"),
        ({"base": {"id": 3}}, "not the configuration"),
        ({"config": {"preset": "sd"}}, "not the configuration"),
        ({"card": []}, "not the configuration"),
    ],
)
def test_strange_configurations(parts: Path, values: dict[str, Any], message: str) -> None:
    change(parts / "trained" / "config.json", **values)
    with pytest.raises(WeightsError, match=message):
        load(parts / "trained", device="cpu")


def test_a_folder_of_something_else(parts: Path) -> None:
    with pytest.raises(WeightsError, match="not of a trained SPRDiff"):
        load(parts / "semantic", device="cpu")
    with pytest.raises(WeightsError, match=r"lacks the file config\.json"):
        load(parts / "base", device="cpu")


def test_saving_takes_nothing_with_it(parts: Path) -> None:
    model = small_model(parts)
    (parts / "trained" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"it holds notes\.txt"):
        save(parts / "trained", model, entropy_arrays(model.latent_codec))
    assert (parts / "trained" / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in parts.iterdir() if "part" in p.suffix) == []


def test_a_diverged_model_is_not_saved(parts: Path) -> None:
    model = small_model(parts)
    with torch.no_grad():
        model.synthesis.enter.weight[0] = float("nan")
    with pytest.raises(WeightsError, match=r"synthesis\.enter\.weight holds what is no number"):
        save(parts / "new", model, entropy_arrays(model.latent_codec))
    assert not (parts / "new").exists()


# ---------------------------------------------------------------------------- publishing, licences


def test_a_model_on_folders_is_not_published(parts: Path) -> None:
    with pytest.raises(WeightsError, match="which others do not have"):
        push_to_hub(parts / "trained", "someone/sprdiff")


def test_publishing(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("base", "semantic"):
        cache(parts / part, f"someone/{part}", parts)
    model = build(load_base("someone/base"), load_semantic("someone/semantic"), SMALL)
    save(parts / "public", model, entropy_arrays(model.latent_codec), {"hours": 1.5}, licence="Apache-2.0")
    card = (parts / "public" / "README.md").read_text()
    assert (
        "base_model:\n- someone/base\n- someone/semantic\n---" in card
        and COMMIT in card
        and "Apache-2.0" in card
    )
    assert "| hours | 1.5 |" in card and "not known here" in card
    sent: dict[str, Any] = {}

    class Api:
        def create_repo(self, name: str, **options: Any) -> None:
            sent.update(options, name=name)

        def upload_folder(self, **options: Any) -> Any:
            sent.update(options)
            return type("Commit", (), {"commit_url": "https://hub/commit"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push_to_hub(parts / "public", "someone/sprdiff", private=True) == "https://hub/commit"
    assert sent["name"] == sent["repo_id"] == "someone/sprdiff" and sent["private"] is True


def test_publishing_fails_in_one_line(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def create_repo(self, *_: Any, **__: Any) -> None:
            raise OSError("no\nconnection")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(WeightsError, match="cannot be published: OSError: no connection"):
        sd_hub.upload(parts / "trained", "someone/sprdiff", private=False)


def test_licences() -> None:
    assert licence_of("stabilityai/sd-turbo").restricts.startswith("commercial use")
    assert licence_of("someone/else").name.startswith("not known")
    assert {licence.part for licence in LICENCES} == {"base", "semantic"}
    assert all(licence.link.startswith("https://") and licence.megabytes > 100 for licence in LICENCES)
