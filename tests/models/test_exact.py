"""Tests of the integer networks in torch: in double precision they equal the integer path bit for bit, in any
order of steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sprdiff.format.constants import KNOTS, LEVELS
from sprdiff.format.entropy import EntropyModel
from sprdiff.format.intnet import level_weights as integer_level_weights
from sprdiff.format.rangecoder import SymbolCounter
from sprdiff.format.tables import Tables
from sprdiff.models.blocks import level_weights
from sprdiff.models.config import CHECKERBOARD, FOUR_PASSES, NANO, SIX_PASSES, ModelConfig, Passes
from sprdiff.models.integer_networks import ContextStep, IntegerDense, round_ste
from sprdiff.models.latent_codec import LatentCodec
from sprdiff.models.passes import known_inputs, lattice
from sprdiff.models.rate import rounded_bits, table_bits
from sprdiff.models.stored import entropy_arrays

THREE_PASSES: Passes = ((0, 1), (2, 2))
Orders = tuple[Passes, bool]
ORDERS: tuple[Orders, ...] = (
    (CHECKERBOARD, False),
    (CHECKERBOARD, True),
    (FOUR_PASSES, False),
    (FOUR_PASSES, True),
    (THREE_PASSES, False),
    (SIX_PASSES, False),
    (SIX_PASSES, True),
)


class Recorder(SymbolCounter):
    """A coder that keeps the table index and the mean of every block, in the order of the stream."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.blocks: list[tuple[np.ndarray, np.ndarray]] = []

    def code(self, index: Any, mu: Any, scaled: Any) -> Any:
        self.blocks.append((np.array(index), np.array(mu)))
        return super().code(index, mu, scaled)


class ExactGains(LatentCodec):
    """A latent codec with the gains of the integer path, which differ by a hair from the floats of
    training."""

    gains: dict[str, np.ndarray]

    def y_gain(self, level: Tensor) -> Tensor:
        return torch.from_numpy(self.gains["gain.y"][level.long().numpy()] / 2.0**16)[:, :, None, None]

    def z_gain(self, level: Tensor) -> Tensor:
        return torch.from_numpy(self.gains["gain.z"][level.long().numpy()] / 2.0**16)[:, :, None, None]


Pair = tuple[ExactGains, EntropyModel]


def make(config: ModelConfig) -> Pair:
    """Make a latent codec whose weights reach every clip and every table, and its integer path."""
    torch.manual_seed(5)
    codec = ExactGains(config).eval()
    with torch.no_grad():
        for last in (m.layer2 for m in codec.modules() if isinstance(m, ContextStep)):
            last.weight.mul_(8)
            last.bias.add_(torch.randn_like(last.bias))
        for layer in (m for m in codec.modules() if isinstance(m, IntegerDense)):
            layer.bias.add_(0.3 * torch.randn_like(layer.bias))
        codec.hyper_synthesis.layer0.weight.view(-1)[::7] *= 40  # beyond what int16 holds
        codec.z_mean.add_(0.5 * torch.randn_like(codec.z_mean))
        codec.z_index.add_(0.3 * torch.randn_like(codec.z_index))
        # Small gains: values beyond the symbol limit are no part of the comparison.
        codec.y_log_gain.copy_(0.7 + 0.3 * torch.randn_like(codec.y_log_gain))
        codec.z_log_gain.copy_(0.7 + 0.3 * torch.randn_like(codec.z_log_gain))
    arrays = entropy_arrays(codec)
    codec.gains = {k: arrays[k].astype(np.float64) for k in ("gain.y", "gain.z")}
    return codec.double(), EntropyModel(arrays)


@pytest.fixture(
    scope="module", params=ORDERS, ids=["2", "2 by group", "4", "4 by group", "3", "6", "6 by group"]
)
def exact(request: pytest.FixtureRequest) -> Pair:
    passes, group_major = request.param
    return make(replace(NANO, passes=passes, group_major=group_major))


def latents(grid: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (4 * rng.standard_normal((NANO.y_channels, *grid))).astype(np.float32)
    z = (3 * rng.standard_normal((NANO.z_channels, -(-grid[0] // 2), -(-grid[1] // 2)))).astype(np.float32)
    return y, z


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 4), (5, 7), (8, 3)])
@pytest.mark.parametrize("level", [0, 37, 128, 200, 255])
def test_double_precision_equals_the_integer_path(exact: Pair, level: int, grid: tuple[int, int]) -> None:
    codec, entropy = exact
    y, z = latents(grid, level)
    recorder = Recorder(entropy.tables)
    entropy.count(recorder, y, z, level)
    chosen: list[tuple[Tensor, Tensor]] = []
    handles = [s.register_forward_hook(lambda _, __, out: chosen.append(out)) for s in codec.context]
    with torch.no_grad():
        levels = torch.tensor([float(level)], dtype=torch.float64)
        q = codec(torch.from_numpy(y)[None].double(), torch.from_numpy(z)[None].double(), levels)
        gain = codec.y_gain(levels)
        prior_mean, prior_index = codec.z_prior(levels)
    for handle in handles:
        handle.remove()
    index, mean = recorder.blocks[0]
    assert np.array_equal(prior_index[0, :, 0, 0].numpy(), index[0])
    assert np.array_equal(prior_mean[0, :, 0, 0].numpy() * 256, mean[0])
    config, side = codec.config, len(codec.config.passes)
    shape = tuple(-(-length // side) * side for length in grid)
    raster = np.asarray(config.passes)[
        np.arange(grid[0])[:, None] % side, np.arange(grid[1])[None] % side
    ].ravel()
    for (number, group), found, block in zip(config.order, chosen, recorder.blocks[1:], strict=True):
        distance, cells = lattice(config.passes, number)
        for part, wanted, unit in zip(found, reversed(block), (256, 1), strict=True):
            whole = torch.full((part.shape[1], *shape), torch.nan, dtype=torch.float64)
            for (row, column), values in zip(cells, part.chunk(len(cells)), strict=True):
                whole[:, distance * row :: 2 * distance, distance * column :: 2 * distance] = values[0]
            own = whole[:, : grid[0], : grid[1]].flatten(1).T.numpy()[raster == number] * unit
            assert np.array_equal(own, wanted), f"pass {number}, group {group}"
    encoded = entropy.encode(y, z, level)
    decoded = entropy.decode(encoded.stream, grid, level)
    for name in ("y_hat", "mu", "h"):
        assert np.array_equal(getattr(encoded, name), getattr(decoded, name)), name
    # Dividing by the gain and multiplying again leaves a few units of 2^-53.
    assert np.abs((q.y_hat * gain)[0].numpy() * 256 - encoded.y_hat).max() < 1e-6
    assert np.abs((q.means * gain)[0].numpy() * 256 - encoded.mu).max() < 1e-6
    assert np.array_equal(q.features[0].numpy() * 256, encoded.h)


def test_the_comparison_is_not_vacuous(exact: Pair) -> None:
    codec, entropy = exact
    recorder = Recorder(entropy.tables)
    entropy.count(recorder, *latents((8, 8), 0), 128)
    tables = np.concatenate([index.ravel() for index, _ in recorder.blocks[1:]])
    means = np.concatenate([mean.ravel() for _, mean in recorder.blocks[1:]])
    assert {0, NANO.tables - 1} < set(tables.tolist()) and len(set(tables.tolist())) > 30, (
        "tables from end to end"
    )
    assert means.std() > 100 and (means % 256 != 0).any()
    assert float(codec.hyper_synthesis.layer0.weight.detach().abs().max()) > 8, (
        "a weight that int16 has to clip"
    )


def test_estimated_bits_are_near_the_coded_ones(exact: Pair) -> None:
    codec, entropy = exact
    y, z = latents((15, 16), 3)
    with torch.no_grad():
        q = codec(
            torch.from_numpy(y)[None].double(),
            torch.from_numpy(z)[None].double(),
            torch.tensor([128.0], dtype=torch.float64),
            hard=True,
        )
    # A floor under the probabilities stands in place of escapes.
    assert float(q.y_bits + q.z_bits) == pytest.approx(entropy.encode(y, z, 128).bits, rel=0.1)


# ---------------------------------------------------------------------------- levels, rounding, bits


def test_level_weights_are_those_of_the_integer_networks() -> None:
    levels = torch.arange(LEVELS, dtype=torch.float64)
    found = level_weights(levels)
    assert found.shape == (LEVELS, KNOTS) and torch.equal(
        found.sum(1), torch.ones(LEVELS, dtype=torch.float64)
    )
    expected = np.stack([integer_level_weights(level) for level in range(LEVELS)])
    assert np.array_equal(found.numpy() * 256, expected)


def test_level_weights_interpolate() -> None:
    assert level_weights(torch.tensor([40.0]))[0].tolist() == [0, 0.75, 0.25, 0, 0, 0, 0, 0, 0]


def test_rounding_passes_gradients() -> None:
    x = torch.tensor([0.5, -0.5, 1.49], requires_grad=True)
    out = round_ste(x)
    out.sum().backward()
    assert out.tolist() == [1, 0, 1] and x.grad is not None and x.grad.tolist() == [1, 1, 1]


def test_bits_of_a_bin_sum_to_one() -> None:
    for sigma in (0.1, 1.0, 9.0):
        mass = torch.exp2(-table_bits(torch.arange(-400.0, 401.0, dtype=torch.float64), torch.tensor(sigma)))
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3)


def test_rounded_bits_are_those_of_the_symbol_with_the_slope_that_noise_has_on_average() -> None:
    residual = torch.tensor([-1.6, -0.4, 0.0, 0.3, 0.7, 2.2], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.8, 0.3, 0.15, 0.3, 0.5, 2.0], dtype=torch.float64)
    bits = rounded_bits(residual, sigma)
    assert torch.equal(
        bits, table_bits(torch.tensor([-2.0, 0.0, 0.0, 0.0, 1.0, 2.0], dtype=torch.float64), sigma)
    )
    (slope,) = torch.autograd.grad(bits.sum(), residual)
    noise = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5
    noisy = table_bits(residual[:, None] + noise, sigma[:, None]).mean(1)
    (expected,) = torch.autograd.grad(noisy.sum(), residual)
    assert torch.allclose(slope, expected, rtol=1e-3, atol=1e-3)


def test_inputs_that_nothing_is_known_of_have_no_weights_and_no_say() -> None:
    torch.manual_seed(0)
    codec, level = LatentCodec(NANO).double(), torch.tensor([30.0, 200.0], dtype=torch.float64)
    y, z = 3 * torch.randn(2, 12, 7, 5, dtype=torch.float64), torch.randn(2, 4, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        before, idle = codec(y, z, level, hard=True), 0
        for number, step in enumerate(codec.context):
            assert isinstance(step, ContextStep)
            known, weight = known_inputs(NANO, number), step.layer0.weight
            assert not (weight[:, : known.numel()] * (1 - known)).any()
            idle += int((1 - known).sum())
            weight[:, : known.numel()] += (1 - known) * torch.randn(len(weight), known.numel())
        after = codec(y, z, level, hard=True)
    assert idle > 0 and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
