"""The networks: shapes, what starts as what, exactness against the integer path, reach and budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sprdiff.format.entropy import EntropyModel
from sprdiff.format.intnet import hats as integer_hats
from sprdiff.format.rangecoder import SymbolCounter
from sprdiff.format.tables import Tables
from sprdiff.models import latent_codec
from sprdiff.models.blocks import ConvBlock, LevelModulation, hats
from sprdiff.models.config import KNOTS, LEVELS, NANO, PRESETS, TINY, ModelConfig
from sprdiff.models.flow import NOISE_SCALE, Denoiser, WindowCrossAttention, noised
from sprdiff.models.latent_codec import (
    ContextStep,
    IntegerDense,
    LatentCodec,
    checkerboard,
    exact_dtype,
    round_ste,
    rounded_bits,
    table_bits,
)
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.stored import entropy_arrays
from sprdiff.runtime.onnx import ENCODER_TILE
from sprdiff.train.export.folder import receptive_field
from tf32_helpers import emulate_tf32
from training_helpers import disturb, nano_model


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def tiny() -> SPRDiff:
    """The shipped sizes with random weights; nothing is at its initial zero."""
    torch.manual_seed(1)
    model = SPRDiff(TINY).eval()
    disturb(model, 0.01)
    return model


# ---------------------------------------------------------------------------- shapes and configuration


def test_shapes_of_every_part() -> None:
    model, c = nano_model(), NANO
    x, level = torch.rand(2, 3, 128, 192), torch.tensor([3.0, 200.0])
    encoder = model.triple_encoder
    assert encoder.vae(x)[0].shape == encoder.vae(x)[1].shape == (2, c.vae_latent, 8, 12)
    assert encoder.distortion(x).shape == (2, c.distortion[1], 8, 12)
    assert encoder.semantic(x).shape == (2, c.semantic[1], 8, 12)
    assert encoder(x).shape == (2, c.fused, 8, 12)
    y, z = model.latent_codec.analyse(encoder(x))
    assert y.shape == (2, c.y_channels, 4, 6) and z.shape == (2, c.z_channels, 2, 3)
    decoded = model(x, level)
    q, r = decoded.quantised, decoded.reconstruction
    assert q.y_hat.shape == y.shape and q.y_bits.shape == q.z_bits.shape == (2,)
    assert r.coarse.shape == x.shape and r.z_est.shape == (2, c.vae_latent, 8, 12)
    assert r.c_pix.shape == (2, c.pixel_condition, 8, 12) and r.c_sem.shape == (2, c.semantic_condition, 4, 6)
    z0 = model.denoise_once(r)
    assert z0.shape == model.clean_latent(x).shape == r.z_est.shape
    assert model.decode_latent(z0, r.coarse).shape == x.shape


@pytest.mark.parametrize("name", PRESETS)
def test_configuration_survives_json(name: str) -> None:
    config = PRESETS[name]
    assert ModelConfig.from_json(config.to_json()) == config
    with pytest.raises(TypeError, match="other fields"):
        ModelConfig.from_json('{"preset": "tiny"}')


def test_groups_must_cover_the_channels() -> None:
    with pytest.raises(ValueError, match="do not sum"):
        ModelConfig(groups=(1, 2))


def test_no_layer_looks_across_the_whole_picture() -> None:
    forbidden = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention)
    pooled = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, *forbidden)
    assert not [m for m in SPRDiff(NANO).modules() if isinstance(m, pooled)]


# ---------------------------------------------------------------------------- what starts as what


def test_the_fused_encoder_starts_as_the_pixel_codec() -> None:
    encoder, x = SPRDiff(NANO).triple_encoder, torch.rand(1, 3, 64, 64)
    assert torch.equal(encoder(x), encoder.fuse_distortion(encoder.distortion(x)))
    disturb(encoder.fuse_others)
    assert not torch.allclose(encoder(x), encoder.fuse_distortion(encoder.distortion(x)))


def test_level_modulation_starts_as_identity() -> None:
    modulation, x = LevelModulation(4), torch.randn(2, 4, 3, 3)
    levels = torch.tensor([0.0, 255.0])
    assert torch.equal(modulation(x, levels), x)
    disturb(modulation)
    assert not torch.equal(modulation(x, levels), x)


def test_attention_and_late_conditions_start_silent() -> None:
    denoiser = Denoiser(NANO)
    args = denoiser_inputs()
    before = denoiser(*args)
    attention = denoiser.blocks[0].attention
    assert isinstance(attention, WindowCrossAttention)
    assert not attention.project.weight.any() and not denoiser.residual.weight.any()
    assert torch.equal(before, denoiser(*args[:3], args[3] + 1)), "semantic tokens are heard before training"


def test_residual_blocks_keep_the_size_of_a_signal() -> None:
    x = torch.randn(1, 64, 16, 16)
    with torch.no_grad():
        out = nn.Sequential(*(ConvBlock(64) for _ in range(6)))(x)
    assert 0.5 < float(out.std() / x.std()) < 2


# ---------------------------------------------------------------------------- levels


def test_hats_are_those_of_the_integer_networks() -> None:
    levels = torch.arange(LEVELS, dtype=torch.float64)
    found = hats(levels)
    assert found.shape == (LEVELS, KNOTS) and torch.equal(found.sum(1), torch.ones(LEVELS, dtype=torch.float64))
    expected = np.stack([integer_hats(level) for level in range(LEVELS)])
    assert np.array_equal(found.numpy() * 256, expected)


def test_hats_interpolate() -> None:
    assert hats(torch.tensor([40.0]))[0].tolist() == [0, 0.75, 0.25, 0, 0, 0, 0, 0, 0]


# ---------------------------------------------------------------------------- torch and integers agree


class Recorder(SymbolCounter):
    """Keeps the table index and the mean of every block, in the order of the stream."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.blocks: list[tuple[np.ndarray, np.ndarray]] = []

    def code(self, index: Any, mu: Any, scaled: Any) -> Any:
        self.blocks.append((np.array(index), np.array(mu)))
        return super().code(index, mu, scaled)


class ExactGains(LatentCodec):
    """Takes the gains of the integer path: in training they are floats a hair away."""

    gains: dict[str, np.ndarray]

    def y_gain(self, level: Tensor) -> Tensor:
        return torch.from_numpy(self.gains["gain.y"][level.long().numpy()] / 2.0**16)[:, :, None, None]

    def z_gain(self, level: Tensor) -> Tensor:
        return torch.from_numpy(self.gains["gain.z"][level.long().numpy()] / 2.0**16)[:, :, None, None]


@pytest.fixture(scope="module")
def exact() -> tuple[ExactGains, EntropyModel]:
    """A latent codec with weights that make every clip and every table happen, and the integer path of it."""
    torch.manual_seed(5)
    codec = ExactGains(NANO).eval()
    with torch.no_grad():
        for last in (m.layer2 for m in codec.modules() if isinstance(m, ContextStep)):
            last.weight.mul_(8)
            last.bias.add_(torch.randn_like(last.bias))
        for layer in (m for m in codec.modules() if isinstance(m, IntegerDense)):
            layer.bias.add_(0.3 * torch.randn_like(layer.bias))
        codec.hyper_synthesis.layer0.weight.view(-1)[::7] *= 40  # beyond what int16 holds
        codec.z_mean.add_(0.5 * torch.randn_like(codec.z_mean))
        codec.z_index.add_(0.3 * torch.randn_like(codec.z_index))
        codec.y_log_gain.add_(0.3 * torch.randn_like(codec.y_log_gain))
    arrays = entropy_arrays(codec)
    codec.gains = {k: arrays[k].astype(np.float64) for k in ("gain.y", "gain.z")}
    return codec.double(), EntropyModel.from_arrays(arrays)


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 4), (5, 7), (8, 3)])
@pytest.mark.parametrize("level", [0, 37, 128, 255])
def test_double_precision_equals_the_integer_path(
    exact: tuple[ExactGains, EntropyModel], level: int, grid: tuple[int, int]
) -> None:
    codec, entropy = exact
    rng = np.random.default_rng(level)
    y = (4 * rng.standard_normal((NANO.y_channels, *grid))).astype(np.float32)
    z = (3 * rng.standard_normal((NANO.z_channels, -(-grid[0] // 2), -(-grid[1] // 2)))).astype(np.float32)
    recorder = Recorder(entropy.tables)
    entropy.count(recorder, y, z, level)
    chosen: list[tuple[Tensor, Tensor]] = []
    handles = [s.register_forward_hook(lambda _, __, out: chosen.append(out)) for s in codec.context]
    with torch.no_grad():
        levels = torch.tensor([float(level)], dtype=torch.float64)
        q = codec(torch.from_numpy(y)[None].double(), torch.from_numpy(z)[None].double(), levels)
        scaled = (q.y_hat * codec.y_gain(levels))[0].numpy() * 256
        prior_mean, prior_index = codec.z_prior(levels)
    for handle in handles:
        handle.remove()
    encoded = entropy.encode(y, z, level)
    # Dividing by the gain and multiplying again leaves a few units of 2^-53.
    assert np.abs(scaled - encoded.y_hat).max() < 1e-6
    index, mean = recorder.blocks[0]
    assert np.array_equal(prior_index[0, :, 0, 0].numpy(), index[0])
    assert np.array_equal(prior_mean[0, :, 0, 0].numpy() * 256, mean[0])
    raster = np.add.outer(np.arange(grid[0]), np.arange(grid[1])).ravel() % 2
    for step, ((means, indices), (index, mean)) in enumerate(zip(chosen, recorder.blocks[1:], strict=True)):
        here = raster == step // len(NANO.groups)
        assert np.array_equal(flat(indices)[here], index), f"table of step {step}"
        assert np.array_equal(flat(means)[here] * 256, mean), f"mean of step {step}"


def flat(x: Tensor) -> np.ndarray:
    """[1, C, h, w] -> [h w, C]."""
    return np.asarray(x[0].flatten(1).T.numpy())


def predictions(codec: LatentCodec, level: float) -> list[Tensor]:
    """Mean and table of each step, and ŷ times its gain, of made-up latents in float32."""
    generator = torch.Generator().manual_seed(1)
    y = 4 * torch.randn(1, NANO.y_channels, 7, 9, generator=generator)
    z = 3 * torch.randn(1, NANO.z_channels, 4, 5, generator=generator)
    found: list[Tensor] = []
    handles = [step.register_forward_hook(lambda _, __, out: found.extend(out)) for step in codec.context]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        codec(y, z, torch.tensor([level]))
    for handle in handles:
        handle.remove()
    return [value.double() for value in found]


@pytest.mark.parametrize("level", [0.0, 37.0, 200.0])
def test_integer_networks_stay_exact_on_a_gpu_that_uses_tf32(monkeypatch: pytest.MonkeyPatch, level: float) -> None:
    torch.manual_seed(5)
    codec = LatentCodec(NANO).eval()
    with torch.no_grad():
        for layer in (m for m in codec.modules() if isinstance(m, IntegerDense)):
            layer.bias.add_(0.3 * torch.randn_like(layer.bias))
        codec.z_mean.add_(0.5 * torch.randn_like(codec.z_mean))
    with monkeypatch.context() as patch:
        patch.setattr(latent_codec, "exact_dtype", lambda _: torch.float64)
        expected = predictions(codec, level)
    emulate_tf32(monkeypatch)
    rounded = predictions(codec, level)
    assert any(not torch.equal(a, b) for a, b in zip(rounded, expected, strict=True)), "float32 is not exact there"
    on_gpu = exact_dtype(torch.device("cuda"))
    monkeypatch.setattr(latent_codec, "exact_dtype", lambda _: on_gpu)
    for a, b in zip(predictions(codec, level), expected, strict=True):
        assert torch.equal(a, b)


def test_results_have_the_precision_of_the_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = LatentCodec(NANO)
    y, z = torch.randn(2, NANO.y_channels, 4, 4), torch.randn(2, NANO.z_channels, 2, 2)
    levels = torch.tensor([10.0, 200.0])
    monkeypatch.setattr(latent_codec, "exact_dtype", lambda _: torch.float64)
    for given, expected in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32)):
        q = codec(y.to(given), z.to(given), levels)
        assert {part.dtype for part in q} == {expected}
    (q.y_bits.sum() + q.y_hat.square().sum()).backward()
    gradients = [p.grad for name, p in codec.named_parameters() if name.startswith("context")]
    assert all(g is not None and g.dtype == torch.float32 and torch.isfinite(g).all() for g in gradients)


def test_the_comparison_is_not_vacuous(exact: tuple[ExactGains, EntropyModel]) -> None:
    codec, entropy = exact
    recorder = Recorder(entropy.tables)
    rng = np.random.default_rng(0)
    y, z = (rng.normal(0, 4, shape).astype(np.float32) for shape in ((12, 8, 8), (4, 4, 4)))
    entropy.count(recorder, y, z, 128)
    tables = np.concatenate([index.ravel() for index, _ in recorder.blocks[1:]])
    means = np.concatenate([mean.ravel() for _, mean in recorder.blocks[1:]])
    assert {0, 63} < set(tables.tolist()) and len(set(tables.tolist())) > 30, "tables from end to end"
    assert means.std() > 100 and (means % 256 != 0).any()
    assert float(codec.hyper_synthesis.layer0.weight.detach().abs().max()) > 8, "a weight that int16 has to clip"


def test_estimated_bits_are_near_the_coded_ones(exact: tuple[ExactGains, EntropyModel]) -> None:
    codec, entropy = exact
    rng = np.random.default_rng(3)
    y = rng.normal(0, 4, (1, NANO.y_channels, 16, 16))
    z = rng.normal(0, 3, (1, NANO.z_channels, 8, 8))
    with torch.no_grad():
        q = codec(torch.from_numpy(y), torch.from_numpy(z), torch.tensor([128.0], dtype=torch.float64))
    coded = entropy.encode(y[0].astype(np.float32), z[0].astype(np.float32), 128).bits
    # Noise in place of rounding, and a floor under the probabilities in place of escapes.
    assert float(q.y_bits + q.z_bits) == pytest.approx(coded, rel=0.1)


def test_rounding_passes_gradients() -> None:
    x = torch.tensor([0.5, -0.5, 1.49], requires_grad=True)
    out = round_ste(x)
    out.sum().backward()
    assert out.tolist() == [1, 0, 1] and x.grad is not None and x.grad.tolist() == [1, 1, 1]


def test_bits_of_a_bin_sum_to_one() -> None:
    for sigma in (0.1, 1.0, 9.0):
        mass = torch.exp2(-table_bits(torch.arange(-400.0, 401.0, dtype=torch.float64), torch.tensor(sigma)))
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3)


def test_checkerboard_halves() -> None:
    even, odd = checkerboard(torch.zeros(1, 1, 3, 3))
    assert even[0, 0].tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert torch.equal(odd, ~even)


# ---------------------------------------------------------------------------- denoiser


def denoiser_inputs(n: int = 2, h: int = 3, w: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z_t, c_pix = (
        torch.randn(n, NANO.vae_latent, 2 * h, 2 * w),
        torch.randn(n, NANO.pixel_condition, 2 * h, 2 * w),
    )
    return z_t, torch.linspace(0.3, 1, n), c_pix, torch.randn(n, NANO.semantic_condition, h, w)


def attention_by_loops(layer: WindowCrossAttention, x: Tensor, tokens: Tensor) -> Tensor:
    """The definition, one query at a time."""
    query, key, value = layer.query(x), layer.key(tokens), layer.value(tokens)
    n, _, height, width = x.shape
    out = torch.zeros_like(query)
    for b, i, j, head in np.ndindex(n, height, width, layer.heads):
        part = slice(head * layer.width, (head + 1) * layer.width)
        keys, values = torch.zeros(9, layer.width), torch.zeros(9, layer.width)
        for k in range(9):
            row, column = i // 2 + k // 3 - 1, j // 2 + k % 3 - 1
            if 0 <= row < height // 2 and 0 <= column < width // 2:
                keys[k], values[k] = key[b, part, row, column], value[b, part, row, column]
        logits = keys @ query[b, part, i, j] / math.sqrt(layer.width)
        weights = (logits + layer.position[head, 2 * (i % 2) + j % 2]).softmax(0)
        out[b, part, i, j] = weights @ values
    result: Tensor = x + layer.project(out)
    return result


def test_window_attention_is_its_definition() -> None:
    layer = WindowCrossAttention(NANO)
    disturb(layer, 0.5)
    x, tokens = torch.randn(2, NANO.denoiser, 6, 8), torch.randn(2, NANO.semantic_condition, 3, 4)
    with torch.no_grad():
        assert torch.allclose(layer(x, tokens), attention_by_loops(layer, x, tokens), atol=1e-5)


def test_every_input_of_the_denoiser_matters() -> None:
    denoiser, inputs = nano_model().denoiser, denoiser_inputs()
    with torch.no_grad():
        base = denoiser(*inputs)
        for i in range(4):
            changed = [x + 0.2 * (i == j) for j, x in enumerate(inputs)]
            assert float((denoiser(*changed) - base).abs().max()) > 1e-3, f"input {i} is ignored"


def test_one_step_starts_at_the_estimate_and_several_move_on() -> None:
    model = nano_model()
    z_t, _, c_pix, c_sem = denoiser_inputs(1)
    one = torch.ones(1)
    with torch.no_grad():
        z0 = model.denoiser(z_t, one, c_pix, c_sem)
        half = noised(z0, z_t, torch.randn_like(z_t), 0.5 * one)
        again = model.denoiser(half, 0.5 * one, c_pix, c_sem)
    assert torch.isfinite(again).all() and not torch.allclose(z0, again)


def test_ends_of_the_diffusion_path() -> None:
    z0, z_est, noise = torch.randn(3, 2, 4, 4, 4).unbind(0)
    assert torch.equal(noised(z0, z_est, noise, torch.zeros(2)), z0)
    assert torch.allclose(noised(z0, z_est, noise, torch.ones(2)), z_est + NOISE_SCALE * noise)


# ---------------------------------------------------------------------------- tiles


def test_the_middle_of_a_tile_is_the_whole_picture() -> None:
    """Beyond the reach of its layers, a decoder tile equals the picture it is cut from."""
    model, level = nano_model(), torch.tensor([100.0])
    y_hat = torch.randn(1, NANO.y_channels, 3, 60)
    halo = math.ceil(receptive_field(model, "decoder") / 32)
    with torch.no_grad():
        whole, part = (model.receive(y, level) for y in (y_hat, y_hat[..., : 20 + halo]))
        images = [model.decode(r) for r in (whole, part)]
    end = 20 * 32
    assert torch.allclose(whole.coarse[..., :end], part.coarse[..., :end], atol=1e-5)
    assert torch.allclose(images[0][..., :end], images[1][..., :end], atol=1e-5)


@pytest.mark.parametrize(
    ("part", "limit"),
    [("encoder", 320), ("decoder", 480), ("coarse", 256), ("denoise", 128), ("vae_decode", 96)],
)
def test_receptive_fields_are_bounded(tiny: SPRDiff, part: str, limit: int) -> None:
    """Limits in pixels, from docs/architecture.md. The codec tiles each graph by itself."""
    assert limit - 128 < receptive_field(tiny, part) <= limit
    if part == "encoder":
        assert ENCODER_TILE >= 2048, "a reach beyond 256 pixels needs large tiles"


# ---------------------------------------------------------------------------- budgets


def multiplications(model: SPRDiff, x: Tensor) -> dict[str, float]:
    """Multiply-accumulates per pixel by part, counted with forward hooks on one pass of encoder and decoder."""
    counts: dict[str, float] = {}
    pixels = x.shape[2] * x.shape[3]
    handles = list(count_into(counts, model, pixels))
    with torch.no_grad():
        decoded = model(x, torch.tensor([128.0]))
        model.decode(decoded.reconstruction)
    for handle in handles:
        handle.remove()
    return counts


def count_into(counts: dict[str, float], model: SPRDiff, pixels: int) -> Iterator[Any]:
    for name, module in model.named_modules():
        part = ".".join(name.split(".")[:2])

        def hook(layer: Any, inputs: Any, output: Any, part: str = part) -> None:
            counts[part] = counts.get(part, 0) + cost_of(layer, inputs[0], output) / pixels

        if isinstance(module, nn.Conv2d | nn.Linear | WindowCrossAttention | IntegerDense):
            yield module.register_forward_hook(hook)


def cost_of(layer: nn.Module, given: Tensor, output: Tensor) -> float:
    """Multiply-accumulates of one call (of attention: only of the products outside its convolutions)."""
    if isinstance(layer, WindowCrossAttention):
        return given.shape[2] * given.shape[3] * 2 * 9 * layer.heads * layer.width
    if isinstance(layer, IntegerDense):
        return output.shape[2] * output.shape[3] * layer.weight.numel()
    if isinstance(layer, nn.Conv2d):
        return output.shape[2] * output.shape[3] * layer.weight.numel()
    assert isinstance(layer, nn.Linear)
    return layer.weight.numel()


ENTROPY = ("latent_codec.hyper_synthesis", "latent_codec.context")
SENDER = ("triple_encoder.", "latent_codec.analysis", "latent_codec.hyper_analysis")


def test_tiny_is_within_its_budgets(tiny: SPRDiff) -> None:
    counts = multiplications(tiny, torch.rand(1, 3, 128, 128))
    # A context network runs at every position in training, at those of its pass (half of them) in the codec.
    counts["latent_codec.context"] /= 2
    sender = sum(v for k, v in counts.items() if k.startswith(SENDER))
    entropy = sum(counts[k] for k in ENTROPY)
    receiver = sum(v for k, v in counts.items() if not k.startswith((*SENDER, *ENTROPY)))
    assert entropy <= 5e3
    assert sender + entropy <= 40e3
    assert receiver + entropy <= 60e3
    assert 2 * sum(v.numel() for v in tiny.state_dict().values()) <= 25e6


def test_rounded_bits_are_those_of_the_symbol_with_the_slope_that_noise_has_on_average() -> None:
    residual = torch.tensor([-1.6, -0.4, 0.0, 0.3, 0.7, 2.2], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.8, 0.3, 0.15, 0.3, 0.5, 2.0], dtype=torch.float64)
    bits = rounded_bits(residual, sigma)
    assert torch.equal(bits, table_bits(torch.tensor([-2.0, 0.0, 0.0, 0.0, 1.0, 2.0], dtype=torch.float64), sigma))
    (slope,) = torch.autograd.grad(bits.sum(), residual)
    noise = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5
    noisy = table_bits(residual[:, None] + noise, sigma[:, None]).mean(1)
    (expected,) = torch.autograd.grad(noisy.sum(), residual)
    assert torch.allclose(slope, expected, rtol=1e-3, atol=1e-3)
