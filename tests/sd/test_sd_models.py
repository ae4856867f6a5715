"""Tests of the networks of preset `sd` on tiny random parts: shapes, initial behaviour, exactness, reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sd_helpers import SMALL, small_model, stir, write_base, write_semantic
from sprdiff.errors import WeightsError
from sprdiff.format.entropy import EntropyModel
from sprdiff.models.config import FOUR_PASSES
from sprdiff.models.stored import entropy_arrays
from sprdiff.sd.config import SD, SDConfig
from sprdiff.sd.elic import ElicAnalysis
from sprdiff.sd.loading import load_base, load_semantic
from sprdiff.sd.model import SDSPRDiff, build, is_trained
from sprdiff.sd.modules import SDReconstruction, SDSynthesis, tokens
from sprdiff.sd.parts import IMAGENET_MEAN
from sprdiff.sd.tiling import Tiling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sd")


@pytest.fixture
def model(folder: Path) -> SDSPRDiff:
    return small_model(folder)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def inputs(rows: int = 2, columns: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(2, 3, 64 * rows, 64 * columns), torch.tensor([3.0, 200.0])


# ---------------------------------------------------------------------------- shapes and configuration


def test_shapes_of_every_part(model: SDSPRDiff) -> None:
    x, level = inputs()
    encoder, c = model.triple_encoder, model.config
    assert encoder.vae(x)[0].shape == encoder.vae(x)[1].shape == model.clean_latent(x).shape == (2, 4, 16, 24)
    assert encoder.distortion(x).shape == (2, 16, 8, 12) and encoder.semantic(x).shape == (2, 16, 8, 12)
    assert encoder(x).shape == (2, c.fused, 8, 12)
    y, z = model.latent_codec.analyse(encoder(x))
    assert y.shape == (2, 12, 2, 3) and z.shape == (2, 4, 1, 1)
    decoded = model(x, level)
    r = decoded.reconstruction
    assert decoded.quantised.y_hat.shape == y.shape and r.coarse.shape == x.shape
    assert (
        r.z_est.shape == (2, 4, 16, 24) and r.c_pix.shape == (2, 8, 16, 24) and r.c_sem.shape == (2, 12, 2, 3)
    )
    z0 = model.denoise_once(r)
    assert z0.shape == r.z_est.shape and model.decode_latent(z0).shape == x.shape


def test_widths_are_read_off_the_parts(folder: Path, tmp_path: Path, model: SDSPRDiff) -> None:
    assert (model.config.vae_latent, model.config.semantic, model.config.cross_attention) == (4, 16, 12)
    wider = load_base(str(write_base(tmp_path, cross_attention_dim=20)))
    assert build(wider, load_semantic(str(folder / "semantic")), SMALL).config.cross_attention == 20


def test_configuration_survives_json() -> None:
    for config in (SD, SMALL, replace(SMALL, passes=FOUR_PASSES, prediction="base")):
        assert SDConfig.from_json(config.to_json()) == config
    with pytest.raises(TypeError, match="other fields"):
        SDConfig.from_json('{"preset": "sd"}')
    with pytest.raises(ValueError, match="do not sum"):
        SDConfig(groups=(1, 2))


def test_what_is_trained(model: SDSPRDiff) -> None:
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert (
        names
        == {name for name, _ in model.named_parameters() if is_trained(name)}
        == set(model.trained_state())
    )
    parts = {name.split(".")[0] for name in names}
    assert parts == {"triple_encoder", "latent_codec", "synthesis", "reconstruction", "denoiser"}
    unet = {name for name in names if name.startswith("denoiser.unet.")}
    assert all("lora_" in name or ".conv_in." in name for name in unet)
    for layer in ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "conv2", "conv_out"):
        assert any(f".{layer}.lora_A" in name for name in unet), layer


# ---------------------------------------------------------------------------- what starts as what


def test_the_fused_encoder_starts_as_the_pixel_codec(model: SDSPRDiff) -> None:
    x, _ = inputs()
    encoder = model.triple_encoder
    assert torch.equal(encoder(x), encoder.fuse_distortion(encoder.distortion(x)))


def test_the_unet_starts_as_the_pretrained_one(model: SDSPRDiff, folder: Path) -> None:
    """Adapters, conditions and residual are silent, so the result is the base model's step without text."""
    base = load_base(str(folder / "base"))
    z, c_pix, c_sem = torch.randn(1, 4, 16, 16), torch.randn(1, 8, 16, 16), torch.zeros(1, 12, 2, 2)
    last = base.schedule.alphas[-1]
    noise = base.unet(z, torch.tensor([999]), encoder_hidden_states=torch.zeros(1, 5, 12)).sample
    step = (z - (1 - last).sqrt() * noise) / last.sqrt()
    plain = small_model(folder, config=replace(SMALL, prediction="base"))
    assert torch.allclose(plain.denoiser(z, torch.ones(1), c_pix, c_sem), step, atol=1e-3)
    damped = z + (last / (1 - last)).sqrt() * (step - z)
    assert torch.allclose(model.denoiser(z, torch.ones(1), c_pix, c_sem), damped, atol=1e-4)


def test_every_zero_start_gets_a_gradient(model: SDSPRDiff) -> None:
    x, level = inputs()
    with torch.enable_grad():
        z0 = model.denoise_once(model(x, level).reconstruction)
        model.decode_latent(z0).square().mean().backward()
    started = {
        "reconstruction.semantic.project.weight": model.reconstruction.semantic.project.weight,
        "denoiser.residual.weight": model.denoiser.residual.weight,
        "triple_encoder.fuse_others.weight": model.triple_encoder.fuse_others.weight,
        "conv_in": model.denoiser.unet.conv_in.weight,
    }
    for name, weight in started.items():
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0, name
    assert float(started["conv_in"].grad[:, 4:].abs().max()) > 0, "the new inputs of conv_in"


def test_conditions_take_the_coarse_image_as_given(model: SDSPRDiff) -> None:
    stir(model)
    x, level = inputs()
    with torch.enable_grad():
        r = model(x, level).reconstruction
        (r.c_pix.square().mean() + r.c_sem.square().mean()).backward()
    assert all(p.grad is None for p in model.reconstruction.coarse.parameters())


def test_means_and_features_are_heard(model: SDSPRDiff) -> None:
    """They are known exactly and cost nothing, and the synthesis takes them beside ŷ."""
    x, level = inputs()
    q = model(x, level).quantised
    before = model.receive(q, level)
    for changed in (q._replace(means=q.means + 1), q._replace(features=q.features + 1)):
        after = model.receive(changed, level)
        assert not torch.allclose(before.coarse, after.coarse) and not torch.allclose(
            before.z_est, after.z_est
        )


def test_both_conditions_are_heard_once_trained(model: SDSPRDiff) -> None:
    stir(model)
    z, c_pix, c_sem = torch.randn(1, 4, 16, 16), torch.randn(1, 8, 16, 16), torch.randn(1, 12, 2, 2)
    one = torch.ones(1)
    before = model.denoiser(z, one, c_pix, c_sem)
    assert not torch.allclose(before, model.denoiser(z, one, c_pix + 1, c_sem))
    assert not torch.allclose(before, model.denoiser(z, one, c_pix, c_sem + 1))


# ---------------------------------------------------------------------------- pretrained parts


def test_the_vae_is_scaled(model: SDSPRDiff, folder: Path) -> None:
    vae = load_base(str(folder / "base")).vae
    x, _ = inputs()
    mean = vae.encode(2 * x - 1).latent_dist.mean
    scaled = mean * vae.config.scaling_factor
    assert torch.allclose(model.clean_latent(x), scaled, atol=1e-6)
    assert torch.allclose(model.decode_latent(scaled), vae.decode(mean).sample / 2 + 0.5, atol=1e-5)


@pytest.mark.parametrize("registers", [False, True])
def test_tokens_become_the_grid_of_the_others(folder: Path, tmp_path: Path, registers: bool) -> None:
    semantic = load_semantic(str(write_semantic(tmp_path, registers=registers)))
    model = build(load_base(str(small_parts(folder) / "base")), semantic, SMALL)
    x, _ = inputs()
    pixels = model.triple_encoder.semantic._resized(x)
    assert pixels.shape[2:] == (8 * 14, 12 * 14)
    states = semantic.backbone(pixel_values=pixels).last_hidden_state
    extra = 1 + (3 if registers else 0)
    found = model.triple_encoder.semantic(x)
    assert states.shape[1] == 8 * 12 + extra
    assert torch.equal(found[1, :, 2, 5], states[1, extra + 2 * 12 + 5]), (
        "class and register tokens are dropped"
    )
    assert [f.shape for f in model.triple_encoder.semantic.levels(x, (1, 2))] == [(2, 16, 8, 12)] * 2


def small_parts(folder: Path) -> Path:
    small_model(folder)
    return folder


def test_images_are_normalised_for_dinov2(model: SDSPRDiff) -> None:
    grey = torch.tensor(IMAGENET_MEAN)[None, :, None, None].expand(1, 3, 64, 64)
    assert float(model.triple_encoder.semantic._resized(grey).abs().max()) < 1e-5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_one_step_by_the_prediction_type(folder: Path, tmp_path: Path, prediction: str) -> None:
    """The step agrees with diffusers' own scheduler, which is asked for the clean sample."""
    from diffusers import DDIMScheduler

    base = load_base(str(write_base(tmp_path, scheduler={"prediction_type": prediction})))
    config = replace(SMALL, prediction="base")
    model = build(base, load_semantic(str(small_parts(folder) / "semantic")), config).eval()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction,
    )
    scheduler.set_timesteps(1000)
    z, out = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for step in (999, 400):
        expected = scheduler.step(out, step, z).pred_original_sample
        assert torch.allclose(
            model.denoiser.clean(z, out, torch.tensor([step])), expected, rtol=1e-4, atol=1e-4
        )


def test_a_zero_terminal_snr_schedule(tmp_path: Path) -> None:
    config = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    base = load_base(str(write_base(tmp_path, scheduler=config)))
    assert float(base.schedule.alphas[-1]) == 0 and 0.99 < float(base.schedule.alphas[0]) < 1
    (tmp_path / "other").mkdir()
    with pytest.raises(WeightsError, match="ends in pure noise"):
        load_base(str(write_base(tmp_path / "other", scheduler=config | {"prediction_type": "epsilon"})))


def test_tokens_of_a_tile_know_the_picture() -> None:
    c_sem = torch.randn(2, 12, 3, 4)
    found = tokens(c_sem)
    assert found.shape == (2, 13, 12) and torch.allclose(found[:, 0], c_sem.mean((2, 3)))
    assert torch.equal(found[:, 1 + 1 * 4 + 2], c_sem[:, :, 1, 2])
    assert torch.equal(tokens(c_sem[:, :, :2], c_sem.mean((2, 3)))[:, 0], found[:, 0])


# ---------------------------------------------------------------------------- exactness, reach, state


def test_torch_and_integers_quantise_alike(model: SDSPRDiff) -> None:
    """The sides of the grid are no multiples of 4, the ratio between y and z."""
    stir(model)
    double = model.double()
    entropy = EntropyModel(entropy_arrays(model.latent_codec))
    assert entropy.ratio == 4
    generator = torch.Generator().manual_seed(0)
    y = 3 * torch.randn(1, 12, 5, 6, generator=generator)
    z = double.latent_codec.hyper_analysis(double.latent_codec._whole_blocks(y.double())).float()
    found = double.latent_codec(y.double(), z.double(), torch.tensor([100.0]).double(), hard=True)
    exact = entropy.encode(y[0].numpy(), z[0].numpy(), 100).y_hat
    theirs = entropy.dequantise(exact, 100)
    # Gains are 16-bit fractions there and floats here: a latent at the edge of its bin may fall on either
    # side.
    assert (np.abs(found.y_hat[0].numpy() - theirs) < 1e-3).mean() > 0.99


def test_full_size_stays_exact() -> None:
    """Even with the largest weights that int16 holds, every sum of the shipped sizes stays below 2^53."""
    bound = (32767 << 8) + 32767
    widest = 9 * max(SD.y_channels, SD.z_channels) * bound + SD.hyper_features * 16383
    assert widest * 32767 < 2**53
    assert max(SD.hyper_hidden, SD.context_hidden) * 16383 * 32767 < 2**53


def reach(run: Any, base: Tensor, changed: Tensor, centre: int, cell: int) -> int:
    """Return the pixels from the middle of the change to the furthest place that feels it, left or right."""
    difference = (run(base) - run(changed)).abs().amax((0, 1, 2))
    touched = torch.nonzero(difference > 1e-7 * difference.max()).flatten()
    return max(centre - int(touched.min()) * cell, (int(touched.max()) + 1) * cell - centre)


def test_reach_of_elic() -> None:
    torch.manual_seed(0)
    analysis = ElicAnalysis((4, 8)).double()
    base = torch.rand(1, 3, 64, 512).double()
    changed = base.clone()
    changed[..., 256] = 1 - changed[..., 256]
    assert 64 < reach(analysis, base, changed, 256, 16) <= 160, "132 and the cell that it falls in"


def test_the_halo_covers_what_the_new_modules_see() -> None:
    torch.manual_seed(0)
    small = replace(SMALL, depth=SD.depth, cross_attention=12)
    synthesis, module = SDSynthesis(small).double(), SDReconstruction(small).double()
    nn.init.normal_(module.semantic.project.weight)
    base = torch.randn(1, 12 + 12 + 8, 1, 33).double()
    changed = base.clone()
    changed[..., 16] += 4
    level = torch.tensor([100.0]).double()

    def part(index: int) -> Any:
        def run(known: Tensor) -> Tensor:
            f64, f16, z_est = synthesis(*known.split((12, 12, 8), 1), level)
            return (*module(f64, f16), z_est)[index]

        return run

    for index, cell in enumerate((1, 8, 64, 8)):
        found = reach(part(index), base, changed, 16 * 64 + 32, cell) - 32
        assert found <= Tiling().halo, index


def test_trained_state_is_strict(model: SDSPRDiff, folder: Path) -> None:
    stir(model)
    other = small_model(folder, seed=9)
    state = {name: value.clone() for name, value in model.trained_state().items()}
    other.load_trained_state(state)
    assert all(torch.equal(value, state[name]) for name, value in other.trained_state().items())
    name = next(name for name in state if "lora_A" in name)
    with pytest.raises(WeightsError, match=r"1 weights are missing.*lora_A"):
        other.load_trained_state({k: v for k, v in state.items() if k != name})
    with pytest.raises(WeightsError, match="unknown, such as nonsense"):
        other.load_trained_state(state | {"nonsense": torch.zeros(1)})
    with pytest.raises(WeightsError, match="has shape"):
        other.load_trained_state(state | {name: torch.zeros(1)})


def test_gradient_checkpointing_changes_nothing(model: SDSPRDiff) -> None:
    stir(model)
    x, level = inputs(1, 1)
    results = []
    for enable in (False, True):
        model.gradient_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(3)
        with torch.enable_grad():
            model.decode_latent(model.denoise_once(model(x, level).reconstruction)).square().mean().backward()
        gradient = model.denoiser.unet.conv_in.weight.grad
        assert gradient is not None
        results.append(gradient.clone())
    assert torch.allclose(results[0], results[1], rtol=1e-3, atol=1e-7)
