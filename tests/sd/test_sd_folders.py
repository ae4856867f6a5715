"""Tests of trained folders of preset `sd`: they are saved, loaded strictly, refused, and published."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from conftest import photo
from sd_helpers import COMMIT, SMALL, cache, change, small_model, write_base
from sprdiff import Codec, OutputError, WeightsError
from sprdiff.models.stored import entropy_arrays
from sprdiff.runtime.weights import identity
from sprdiff.sd import hub as sd_hub
from sprdiff.sd.assemble import assemble
from sprdiff.sd.folder import hashed_parts, read_trained, read_weights
from sprdiff.sd.licences import LICENCES, licence_of
from sprdiff.sd.loading import load_base, load_semantic
from sprdiff.sd.model import build
from sprdiff.sd.pretrained import load, push_to_hub, save

pytest_plugins = ("sd_fixtures",)


# ---------------------------------------------------------------------------- trained folders


def test_saved_and_loaded_make_the_same_bytes(made: Path, tmp_path: Path) -> None:
    first = Codec.from_pretrained(made / "trained", device="cpu")
    trained = read_trained(made / "trained")
    arrays, weights = read_weights(trained)
    model = assemble(trained, weights, {"base": None, "semantic": None})
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
    """Change the weights of a trained folder and give it their new hashes."""
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
    with pytest.raises(WeightsError, match="1 weights are unknown, such as extra"):
        load(parts / "trained", device="cpu")


def test_changed_weights_are_found(parts: Path) -> None:
    path = parts / "trained" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is damaged"):
        load(parts / "trained", device="cpu")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged: "):
        load(parts / "trained", device="cpu")
    path.unlink()
    with pytest.raises(WeightsError, match=r"lacks the file model\.safetensors$"):
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
    with pytest.raises(WeightsError, match=r"synthesis\.enter\.weight holds values that are no numbers"):
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
