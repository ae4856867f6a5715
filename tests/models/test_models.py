"""Tests of the networks: shapes, initial behaviour, reach and budgets. `test_exact` tests that they are
exact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sprdiff.models.blocks import ConvBlock, LevelModulation, PixelConv, res_blocks
from sprdiff.models.config import NANO, PRESETS, STEP_SIZES, TINY, ModelConfig
from sprdiff.models.efficientnet import FoldedConv
from sprdiff.models.flow import Flow
from sprdiff.models.integer_networks import IntegerDense
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.models.vae import SHAPES, calmed
from sprdiff.runtime.tiling import ENCODER_TILE
from sprdiff.train.export.folder import receptive_field
from training_helpers import disturb, nano_model


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def tiny() -> SPRDiff:
    """Return a model of the shipped sizes with random weights, in which nothing is at its initial zero."""
    torch.manual_seed(1)
    model = SPRDiff(TINY).eval()
    disturb(model, 0.01)
    return model


# ---------------------------------------------------------------------------- shapes and configuration


def test_direct_and_fine_channels_pass_on_pixels_past_the_residual_blocks() -> None:
    """A fine channel sees the 32x32 pixels of its position through linear layers alone, and the synthesis at
    1/16 sees it."""
    model, c = nano_model(), NANO
    direct = model.triple_encoder.distortion.direct
    assert direct is not None and model.latent_codec.fine_analysis is not None
    x = torch.rand(1, 3, 128, 128)
    changed = x.clone()
    changed[:, :, 64:96, 32:64] = 1 - changed[:, :, 64:96, 32:64]
    a, b = (direct(4 * (image - 0.5)) for image in (x, changed))
    differs = (a - b).abs().amax((0, 1)) > 0
    assert differs.nonzero().tolist() == [[4, 2], [4, 3], [5, 2], [5, 3]]
    inverted = direct(4 * (1 - x - 0.5))
    assert torch.allclose(inverted - direct.bias[:, None, None], direct.bias[:, None, None] - a, atol=1e-5)
    fused = model.triple_encoder(x)
    y, _ = model.latent_codec.analyse(fused)
    assert torch.equal(y[:, -c.fine :], model.latent_codec.fine_analysis(fused))
    zeros = torch.zeros(1, c.hyper_features, 4, 4)
    level, one = torch.tensor([90.0]), torch.zeros_like(y)
    one[:, -1, 1, 2] = 1
    given = (
        model.synthesis(given, torch.zeros_like(y), zeros, level) for given in (torch.zeros_like(y), one)
    )
    (_, without), (_, there) = given
    with torch.no_grad():
        assert model.synthesis.fine is not None
        for parameter in model.synthesis.fine.parameters():
            parameter.zero_()
    _, cut = model.synthesis(one, torch.zeros_like(y), zeros, level)
    assert (there - without).abs().max() > 1e-4 and not torch.allclose(there, cut)


def test_configurations_from_before_these_channels_have_none() -> None:
    stored = json.loads(NANO.to_json())
    del stored["direct"], stored["fine"]
    old = ModelConfig.from_json(json.dumps(stored))
    assert (old.direct, old.fine) == (0, 0)
    model = SPRDiff(old)
    assert model.latent_codec.fine_analysis is None and model.synthesis.fine is None
    with pytest.raises(ValueError, match="cannot be fine ones"):
        replace(NANO, fine=NANO.y_channels)


def test_shapes_of_every_part() -> None:
    model, c = nano_model(), NANO
    x, level = torch.rand(2, 3, 128, 192), torch.tensor([3.0, 200.0])
    encoder = model.triple_encoder
    mean, log_deviation = encoder.vae(x, x)
    assert mean.shape == log_deviation.shape == (2, c.vae_latent, 16, 24)
    assert encoder.distortion(x).shape == (2, c.distortion[2] + c.direct, 8, 12)
    assert encoder.semantic is not None and encoder.semantic(x).shape == (2, c.semantic, 8, 12)
    assert encoder(x).shape == (2, c.fused, 8, 12)
    y, z = model.latent_codec.analyse(encoder(x))
    assert y.shape == (2, c.y_channels, 4, 6) and z.shape == (2, c.z_channels, 2, 3)
    decoded = model(x, level)
    q, r = decoded.quantised, decoded.reconstruction
    assert q.y_hat.shape == q.means.shape == y.shape and q.y_bits.shape == q.z_bits.shape == (2,)
    assert q.features.shape == (2, c.hyper_features, 4, 6)
    assert r.coarse.shape == x.shape
    assert r.f32.shape == (2, c.synthesis[0], 4, 6) and r.f16.shape == (2, c.synthesis[1], 8, 12)
    c_pix, c_sem = model.reconstruction.conditions(r.coarse, r.f32, r.f16)
    assert c_pix.shape == (2, c.pixel_condition, 8, 12) and c_sem.shape == (2, c.semantic_condition, 4, 6)
    conditions = model.flow.condition(r.coarse, c_pix, c_sem)
    assert [part.shape[1:] for part in conditions] == [(c.flow[i], 16 >> i, 24 >> i) for i in range(3)]
    velocity = model.flow(mean, level / 255, level * 0, level, conditions)
    assert velocity.shape == mean.shape
    assert model.decode_latent(velocity, r.coarse).shape == x.shape


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


@pytest.mark.parametrize("branch", ["fuse_vae", "fuse_semantic"])
def test_the_fused_encoder_starts_as_the_distortion_oriented_one(branch: str) -> None:
    encoder, x = SPRDiff(NANO).triple_encoder, torch.rand(1, 3, 64, 64)
    assert encoder.semantic is not None
    disturb(encoder.semantic)
    alone = encoder.fuse_distortion(encoder.distortion(x))
    assert torch.equal(encoder(x), alone)
    disturb(getattr(encoder, branch))
    assert not torch.allclose(encoder(x), alone)


def test_a_configuration_without_semantics_has_no_such_encoder() -> None:
    encoder = SPRDiff(replace(NANO, semantic=0)).triple_encoder
    assert encoder.semantic is None and encoder.fuse_semantic is None
    assert encoder(torch.rand(1, 3, 64, 64)).shape == (1, NANO.fused, 4, 4)


def test_level_modulation_starts_as_identity() -> None:
    modulation, x = LevelModulation(4), torch.randn(2, 4, 3, 3)
    levels = torch.tensor([0.0, 255.0])
    assert torch.equal(modulation(x, levels), x)
    disturb(modulation)
    assert not torch.equal(modulation(x, levels), x)


def test_residual_blocks_keep_the_size_of_a_signal() -> None:
    x = torch.randn(1, 64, 16, 16)
    with torch.no_grad():
        for stack in (nn.Sequential(*(ConvBlock(64) for _ in range(6))), res_blocks(64, 6)):
            assert 0.5 < float(stack(x).std() / x.std()) < 2


@pytest.mark.parametrize(("stride", "cells"), [(4, 3), (8, 1)])
def test_pixels_are_gathered_to_the_sums_of_a_strided_convolution(
    stride: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = PixelConv(3, 5, stride, cells), torch.randn(1, 3, 32, 64)
    disturb(layer)
    gathered = layer(x)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert gathered.shape == (1, 5, 32 // stride, 64 // stride)
    assert torch.allclose(layer(x), gathered, atol=1e-5)


# ---------------------------------------------------------------------------- VAE


def test_the_vae_starts_with_more_signal_than_noise() -> None:
    model, x = SPRDiff(NANO), torch.rand(2, 3, 64, 64)
    coarse = (x + 0.2 * torch.randn_like(x)).clamp(0, 1)
    with torch.no_grad():
        mean, log_deviation = model.triple_encoder.vae(x, coarse)
        assert float(mean.std()) > 3 * float(log_deviation.exp().mean())
        decoded = model.vae_decoder(mean, coarse)
    assert float((decoded - coarse).std()) < 0.5, "a residual, not another picture"


def test_standardising_comes_back() -> None:
    model, z = nano_model(), torch.randn(1, NANO.vae_latent, 8, 8)
    model.latent_mean.copy_(torch.linspace(-1, 1, NANO.vae_latent))
    model.latent_std.copy_(torch.linspace(0.5, 2, NANO.vae_latent))
    coarse = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        decoded = model.decode_latent(model.standardised(z), coarse)
        assert torch.allclose(decoded, calmed(model.vae_decoder(z, coarse), coarse), atol=1e-5)


# ---------------------------------------------------------------------------- flow


def flow_inputs(n: int = 2, h: int = 2, w: int = 3) -> dict[str, Tensor]:
    c8, c16, c32 = NANO.flow
    return {
        "z": torch.randn(n, NANO.vae_latent, 4 * h, 4 * w),
        "time": torch.linspace(0.3, 0.9, n),
        "stride": torch.full((n,), 1.0),
        "level": torch.full((n,), 100.0),
        "at8": torch.randn(n, c8, 4 * h, 4 * w),
        "at16": torch.randn(n, c16, 2 * h, 2 * w),
        "at32": torch.randn(n, c32, h, w),
    }


def velocity(flow: Flow, given: dict[str, Tensor]) -> Tensor:
    *scalars, at8, at16, at32 = given.values()
    found: Tensor = flow(*scalars, (at8, at16, at32))
    return found


def test_every_input_of_the_flow_matters() -> None:
    flow, given = nano_model().flow, flow_inputs()
    steps = {"time": 0.1, "stride": 1.0, "level": 60.0}
    with torch.no_grad():
        base = velocity(flow, given)
        for name, value in given.items():
            changed = velocity(flow, given | {name: value + steps.get(name, 0.2)})
            assert float((changed - base).abs().max()) > 1e-3, f"{name} is ignored"


def test_the_flow_starts_at_rest_and_knows_no_strides() -> None:
    flow, given = Flow(NANO), flow_inputs()
    with torch.no_grad():
        assert not velocity(flow, given).any()
        nn.init.normal_(flow.leave.weight)
        found = [
            velocity(flow, given | {"stride": torch.full((2,), float(i))}) for i in range(len(STEP_SIZES))
        ]
    assert found[0].any() and all(torch.equal(found[0], other) for other in found[1:])


def test_the_middle_of_a_tile_is_the_whole_latent() -> None:
    """Beyond the reach of its layers a tile of the flow equals the latent that it is cut from."""
    model, given = nano_model(), flow_inputs(1, 2, 30)
    halo, end = -(-receptive_field(model, "flow") // 32), 20
    per_cell = {"z": 4, "at8": 4, "at16": 2, "at32": 1}
    part = {n: v[..., : (end + halo) * per_cell[n]] if n in per_cell else v for n, v in given.items()}
    with torch.no_grad():
        whole, tile = velocity(model.flow, given), velocity(model.flow, part)
    assert end + halo < 30
    assert torch.allclose(whole[..., : 4 * end], tile[..., : 4 * end], atol=1e-5)


# ---------------------------------------------------------------------------- reach and budgets


@pytest.mark.parametrize(
    ("graph", "limit"),
    [("encoder", 384), ("coarse", 192), ("condition", 64), ("flow", 256), ("vae_decode", 64)],
)
def test_receptive_fields_are_bounded(tiny: SPRDiff, graph: str, limit: int) -> None:
    """The limits in pixels are those of docs/architecture.md; the codec tiles each graph by itself."""
    assert limit - 128 < receptive_field(tiny, graph) <= limit
    if graph == "encoder":
        assert ENCODER_TILE >= 2048, "a reach beyond 256 pixels needs large tiles"


def multiplications(model: SPRDiff, x: Tensor) -> dict[str, float]:
    """Count multiply-accumulates per pixel by part, with forward hooks on one pass of encoder and decoder."""
    counts: dict[str, float] = {}
    level = torch.tensor([128.0])
    handles = list(count_into(counts, model, x.shape[2] * x.shape[3]))
    with torch.no_grad():
        r = model(x, level).reconstruction
        given = model.flow.condition(r.coarse, *model.reconstruction.conditions(*r))
        z = torch.zeros(1, model.config.vae_latent, x.shape[2] // 8, x.shape[3] // 8)
        model.decode_latent(model.flow(z, level / 255, level * 0, level, given), r.coarse)
    for handle in handles:
        handle.remove()
    return counts


def count_into(counts: dict[str, float], model: SPRDiff, pixels: int) -> Iterator[Any]:
    kinds = nn.Conv2d | nn.Linear | PixelConv | FoldedConv | IntegerDense
    for name, module in model.named_modules():
        part = ".".join(name.split(".")[:2])

        def hook(layer: Any, inputs: Any, output: Any, part: str = part) -> None:
            counts[part] = counts.get(part, 0) + cost_of(layer, output) / pixels

        if isinstance(module, kinds):
            yield module.register_forward_hook(hook)


def cost_of(layer: nn.Module, output: Tensor) -> float:
    """Return the multiply-accumulates of one call; an integer layer's batch may hold several cells."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Linear):
        return weight.numel()
    return output.shape[0] * output.shape[2] * output.shape[3] * weight.numel()


def test_tiny_is_within_its_budgets(tiny: SPRDiff) -> None:
    counts = multiplications(tiny, torch.rand(1, 3, 128, 128))

    def total(*prefixes: str) -> float:
        return sum(v for k, v in counts.items() if k.startswith(prefixes)) / 1e3

    entropy = total("latent_codec.hyper_synthesis", "latent_codec.context")
    sender = total("triple_encoder.", "latent_codec.analysis", "latent_codec.hyper_analysis") + entropy
    coarse = total("synthesis.", "reconstruction.coarse")
    conditions = (
        "reconstruction.pixel",
        "reconstruction.semantic",
        "flow.coarse",
        "flow.pixel",
        "flow.semantic",
    )
    flow = total("flow.") - total(*(c for c in conditions if c.startswith("flow.")))
    limits = {
        "entropy": 5,
        "sender": 40,
        "coarse": 8.5,
        "flow": 16,
        "vae_decoder": 11,
        "vae": 7,
        "conditions": 3,
    }
    found = {
        "entropy": entropy,
        "sender": sender,
        "coarse": coarse,
        "flow": flow,
        "vae_decoder": total("vae_decoder."),
        "vae": total("triple_encoder.vae"),
        "conditions": total(*conditions),
    }
    assert {name for name, limit in limits.items() if found[name] > limit} == set(), found
    assert all(
        value > 0.5 * limits[name] for name, value in found.items() if name not in ("entropy", "sender")
    ), found


def test_a_sample_keeps_its_texture_and_a_part_of_its_large_shapes() -> None:
    coarse = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(20, 28).expand(2, 3, -1, -1) / 8
    assert torch.allclose(calmed(coarse + 0.2, coarse), coarse + 0.2 * SHAPES, atol=1e-6)
    kept = calmed(coarse + checks, coarse) - coarse
    assert (kept - checks).abs()[..., 4:-4, 4:-4].max() < 0.05 / 8
    assert torch.equal(calmed(coarse, coarse), coarse)
    moved = coarse.clone()
    moved[..., 20, 28] += 1
    reach = (calmed(moved, coarse) - coarse).abs().sum((0, 1)).nonzero()
    assert reach.min(0).values.tolist() == [16, 24] and reach.max(0).values.tolist() == [24, 32]
