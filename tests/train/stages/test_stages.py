"""Tests of the stages: each learns, trains what it says and nothing else, and sees the levels that it
should."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sprdiff.train.loop
from sprdiff.errors import TrainingError
from sprdiff.format.constants import LEVELS
from sprdiff.models.config import NANO, STEP_SIZES
from sprdiff.models.rate import lambda_of
from sprdiff.models.sprdiff import SPRDiff
from sprdiff.train.checkpoints import PARTS, part_of, save
from sprdiff.train.latents.store import LatentSampler, LatentStore
from sprdiff.train.loop import Trainer
from sprdiff.train.losses import feature_distance, feature_statistics
from sprdiff.train.recipes import CODEC_PARTS, STAGES
from sprdiff.train.stages.base import StageModule, draw_levels
from sprdiff.train.stages.codec import CodecStage, price_at
from sprdiff.train.stages.flow import LAST, FlowStage, draw_times, stride_size
from sprdiff.train.state import collect
from training_helpers import CASES, make_trainer

pytest_plugins = ("training_fixtures",)


def fixed_loss(trainer: Trainer) -> float:
    """Return the stage's loss on a batch, at levels and with noise that are always the same."""
    x = trainer.sampler.batch(0, 0, 4)
    total = 0.0
    with torch.no_grad():
        trainer.module.eval()
        for seed in range(4):
            torch.manual_seed(seed)
            scalars = trainer.module(x, torch.tensor([10.0, 90.0, 170.0, 250.0]))
            total += float(
                scalars.get("flow", scalars["loss"])
            )  # what few steps aim at moves with the network
        trainer.module.train()
    return total / 4


@pytest.mark.parametrize("case", CASES)
def test_each_stage_lowers_its_loss(
    case: str, tmp_path: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprdiff.train.loop, "WARMUP", 5)
    trainer = make_trainer(case, tmp_path, latents, lr=3e-3 if case == "vae" else 1e-2)
    before = fixed_loss(trainer)
    for _ in range(trainer.stage.steps):
        trainer.train_step()
    assert fixed_loss(trainer) < CASES[case].left * before


@pytest.mark.parametrize("case", CASES)
def test_a_stage_trains_what_it_says_and_nothing_else(case: str, tmp_path: Path, latents: Path) -> None:
    trainer = make_trainer(case, tmp_path, latents)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    for _ in range(2):
        scalars = trainer.train_step()
    moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith(trainer.stage.trains) for k in moved)
    assert {part_of(k) for k in moved} <= set(trainer.stage.networks), "a trained network would not be kept"
    assert {"loss", "grad"} <= set(scalars)


@pytest.mark.parametrize("case", CASES)
def test_every_trained_parameter_gets_a_gradient(case: str, tmp_path: Path, latents: Path) -> None:
    """Otherwise several processes would wait for it for ever."""
    trainer = make_trainer(case, tmp_path, latents)
    trainer.module(trainer.sampler.batch(0, 0, 2), torch.tensor([3.0, 200.0]))["loss"].backward()
    silent = [n for n, p in trainer.module.named_parameters() if p.requires_grad and p.grad is None]
    stray = [n for n, p in trainer.module.named_parameters() if not p.requires_grad and p.grad is not None]
    assert not silent and not stray


def test_the_codecs_branches_join_when_told(tmp_path: Path, latents: Path) -> None:
    """The pretrained encoder and the VAE's stay frozen; the weights that bring them into the fusion learn."""
    names = {"triple_encoder.fuse_vae.weight", "triple_encoder.fuse_semantic.weight"}
    moved = {}
    for case in ("codec", "codec-all"):
        trainer = make_trainer(case, tmp_path, latents)
        for _ in range(2):
            trainer.train_step()
        moved[case] = {n for n in names if bool(trainer.model.state_dict()[n].abs().max() > 0)}
    assert moved == {"codec": set(), "codec-all": names}


def test_bits_are_those_of_a_file_once_the_noise_is_over(tmp_path: Path, latents: Path) -> None:
    trainer = make_trainer("codec", tmp_path, latents)
    module: Any = trainer.module
    x, level = trainer.sampler.batch(0, 0, 2), torch.tensor([60.0, 200.0])

    def bits(step: int) -> list[float]:
        module.begin(step, 0.0)
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(float(module(x, level)["bpp"].detach()))
        return found

    early, late = bits(0), bits(module.noisy_steps)
    assert early[0] != early[1] and late[0] == late[1]
    _, bpp = module.reconstruct(x, level)
    assert float(bpp.mean().detach()) == pytest.approx(late[0], rel=1e-5)


def test_the_price_of_a_bit_changes_geometrically() -> None:
    assert price_at((), 5) == 1
    prices = ((10, 0.04), (20, 0.04), (40, 1.0))
    assert [price_at(prices, step) for step in (0, 10, 20, 30, 40, 99)] == pytest.approx(
        [0.04, 0.04, 0.04, 0.2, 1, 1]
    )


def test_cheap_bits_count_less(tmp_path: Path, latents: Path) -> None:
    loss, bpp = {}, {}
    for price in (1.0, 0.25):
        trainer = make_trainer("codec", tmp_path, latents)
        module: Any = trainer.module
        module.prices = ((0, price),)
        module.begin(module.noisy_steps, 0.0)
        torch.manual_seed(0)
        with torch.no_grad():
            scalars = trainer.module(trainer.sampler.batch(0, 0, 1), torch.tensor([90.0]))
        loss[price], bpp[price] = float(scalars["loss"]), float(scalars["bpp"])
    assert bpp[1.0] == bpp[0.25]
    weight = float(lambda_of(torch.tensor([90.0]), NANO.lambda_range))
    assert loss[1.0] - loss[0.25] == pytest.approx(3 * 0.75 * bpp[1.0] / math.sqrt(weight), rel=1e-3)


@pytest.mark.parametrize("price", [[[5, 1.0], [3, 1.0]], [[0, 0.0]], [[-1, 1.0]]])
def test_prices_are_checked(price: Any) -> None:
    with pytest.raises(TrainingError, match="price must be pairs"):
        CodecStage(SPRDiff(NANO), CODEC_PARTS, price=price)


def test_a_relative_loss_weighs_costs_by_their_share(tmp_path: Path, latents: Path) -> None:
    """It grows with the logarithm of the cost, and as fast as the plain loss at the mean cost."""
    loss = {}
    for relative in (0.0, 0.01):
        trainer = make_trainer("codec", tmp_path, latents)
        module: Any = trainer.module
        module.relative = relative
        module.begin(module.noisy_steps, 0.0)
        with torch.no_grad():
            scalars = module(trainer.sampler.batch(0, 0, 1), torch.tensor([90.0]))
        loss[relative] = float(scalars["loss"]) / 3
    cost = module.COST
    assert loss[0.01] == pytest.approx((cost + 0.01) * math.log1p(loss[0.0] / 0.01), rel=1e-4)


def test_the_weights_of_the_loss_are_checked() -> None:
    with pytest.raises(TrainingError, match=r"structure must be between 0 and 0.02, not 0.03"):
        CodecStage(SPRDiff(NANO), (), structure=0.03)
    with pytest.raises(TrainingError, match="relative must be at least 0, not -1"):
        CodecStage(SPRDiff(NANO), (), relative=-1.0)


def test_the_vae_stage_measures_its_latent(tmp_path: Path, latents: Path) -> None:
    trainer = make_trainer("vae", tmp_path, latents)
    trainer.finish()
    with torch.no_grad(), trainer.ema:
        batches: Any = [trainer.sampler.batch(10**9 + i, 0, 2) for i in range(16)]
        pairs = [trainer.model.triple_encoder.vae(b["x"], b["coarse"]) for b in batches]
    mean = trainer.model.standardised(torch.cat([m for m, _ in pairs]))
    noise = torch.cat([d.exp() for _, d in pairs]) / trainer.model.latent_std[None, :, None, None]
    variance = mean.var((0, 2, 3)) + noise.square().mean((0, 2, 3))
    assert mean.mean((0, 2, 3)).abs().max() < 1e-3 and (variance - 1).abs().max() < 1e-3


def test_the_rate_of_the_latent_is_held(tmp_path: Path, latents: Path) -> None:
    """The weight of the rate rises while there is too much of it and falls while there is too little; NaN
    does not move it."""
    module: Any = make_trainer("vae", tmp_path, latents).module
    sampler = LatentSampler(LatentStore.open(latents, ("x", "coarse", "level")), 64, 0)
    batch = sampler.batch(0, 0, 2)
    weight = {}
    for nats in (1e-3, 1e6):
        module.nats = nats
        before = float(module.log_beta)
        module(batch, batch["level"])
        weight[nats] = float(module.log_beta) - before
    assert weight[1e-3] == pytest.approx(module.PACE, rel=1e-3)
    assert weight[1e6] == pytest.approx(-module.PACE, rel=1e-2)
    before = float(module.log_beta)
    module({**batch, "x": batch["x"] * float("nan")}, batch["level"])
    assert float(module.log_beta) == before
    module.eval()
    module(batch, batch["level"])
    assert float(module.log_beta) == before


# ---------------------------------------------------------------------------- levels and times


def levels_seen(tmp_path: Path, latents: Path, batches: int) -> dict[str, np.ndarray]:
    """Return the levels at which each objective of stage flow is computed, by the stride that the network is
    asked for."""
    trainer = make_trainer("flow-few", tmp_path, latents)
    assert isinstance(trainer.sampler, LatentSampler)
    arrays = {n: np.array(a) for n, a in trainer.sampler.store.arrays.items()}
    # As many stored crops as there are levels, one of each: what is drawn of them is seen in the level.
    many = {n: np.broadcast_to(a[:1], (LEVELS, *a.shape[1:])) for n, a in arrays.items()}
    many["level"] = np.arange(LEVELS, dtype=np.int16)
    sampler = LatentSampler(LatentStore(many), 64, 0)
    seen: dict[str, list[float]] = {"flow": [], "smallest": [], "jump": []}
    ask = trainer.model.flow.forward

    def asked(z: Tensor, time: Tensor, stride: Tensor, level: Tensor, given: Any) -> Tensor:
        for d, v in zip(stride.tolist(), level.tolist(), strict=True):
            seen["flow" if d == 0 else "smallest" if d == 1 else "jump"].append(v)
        return ask(z[:1], time[:1], stride[:1], level[:1], tuple(g[:1] for g in given)).expand_as(z)

    vars(trainer.model.flow)["forward"] = asked
    with torch.no_grad():
        for step in range(batches):
            torch.manual_seed(step)
            batch = sampler.batch(step, 0, 32)
            trainer.module(batch, batch["level"])
    return {name: np.array(found) for name, found in seen.items()}


def test_every_objective_of_the_flow_sees_the_same_levels(tmp_path: Path, latents: Path) -> None:
    """They once shared the parity of the index: the one step saw a level below 32 in 3% of its samples."""
    seen = levels_seen(tmp_path, latents, batches=120)
    assert {name: len(found) for name, found in seen.items()} == {
        "flow": 120 * 8,
        "smallest": 120 * 8,
        "jump": 120 * 16,
    }
    for found in seen.values():
        eighths = np.histogram(found, bins=8, range=(0, LEVELS))[0] / len(found)
        assert eighths.min() > 0.09 and eighths.max() < 0.16  # 0.125 each, four standard deviations of .0107


def test_levels_are_drawn_apart_from_the_place_in_the_batch() -> None:
    """Whatever half of a batch an objective takes, it sees the same levels: all of them, and the middle ones
    more often."""
    torch.manual_seed(0)
    levels = torch.stack([draw_levels(8) for _ in range(4000)])
    for part in (levels[:, :4], levels[:, 4:], levels[:, ::2], levels[:, 1::2]):
        eighths = torch.histc(part, bins=8, min=0, max=LEVELS) / part.numel()
        # Half of them even over all, half the mean of two: 0.0625 + 0.5 · (0.03125, 0.09375, 0.15625,
        # 0.21875).
        wanted = torch.tensor([0.078125, 0.109375, 0.140625, 0.171875])
        assert torch.allclose(eighths, torch.cat([wanted, wanted.flip(0)]), atol=0.01)
    assert levels.min() == 0 and levels.max() == LEVELS - 1


def test_stored_crops_have_levels_of_all_qualities(latents: Path) -> None:
    level = np.load(latents / "level.npy")
    assert len(set(level.tolist())) == len(level) and level.min() >= 0 and level.max() < LEVELS


def test_the_flow_is_shown_both_ends_of_time() -> None:
    torch.manual_seed(0)
    time = draw_times(100_000, torch.device("cpu"))
    assert time.min() >= 0 and time.max() == 1
    assert float((time == 1).float().mean()) == pytest.approx(LAST, abs=0.003)
    logit_normal = torch.sigmoid(torch.randn(100_000))
    for near in (lambda t: t < 0.02, lambda t: (t > 0.98) & (t < 1)):
        assert near(time).float().mean() > 20 * near(logit_normal).float().mean()


def test_step_sizes() -> None:
    index = torch.arange(1.0, len(STEP_SIZES))
    assert stride_size(index).tolist() == list(STEP_SIZES[1:])


def test_few_steps_start_from_the_flow_and_follow_it_slowly(tmp_path: Path, latents: Path) -> None:
    trainer = make_trainer("flow-few", tmp_path, latents)
    module: Any = trainer.module
    first = [p.clone() for p in module.slow.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(first, module.model.flow.parameters(), strict=True))
    scalars = [trainer.train_step() for _ in range(2)]
    assert all({"flow", "jump", "loss"} <= set(s) for s in scalars)
    now, slow = (
        torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (module.model.flow, module.slow)
    )
    start = torch.cat([p.flatten() for p in first])
    assert 0 < (slow - start).abs().max() < 0.1 * (now - start).abs().max()


def test_the_smallest_step_learns_the_velocity_and_larger_ones_their_halves(
    tmp_path: Path, latents: Path
) -> None:
    trainer = make_trainer("flow-few", tmp_path, latents)
    asked: dict[str, list[float]] = {"network": [], "halves": []}

    def nothing(name: str) -> Any:
        def velocity(z: Tensor, time: Tensor, stride: Tensor, level: Tensor, given: Any) -> Tensor:
            asked[name] += stride.tolist()
            return torch.zeros_like(z)

        return velocity

    module: Any = trainer.module
    vars(module.model.flow)["forward"], vars(module.slow)["forward"] = nothing("network"), nothing("halves")
    batch: Any = trainer.sampler.batch(0, 0, 32)
    with torch.no_grad():
        scalars = module(batch, batch["level"])
    assert float(scalars["jump"]) == 0 and float(scalars["flow"]) > 0.5  # ε − z has a variance of about 2
    assert set(asked["network"]) == {0, 1, 2, 3, 4} and set(asked["halves"]) == {1, 2, 3}


def trained_flow(folder: Path, latents: Path, name: str, seed: int) -> Path:
    """Write the checkpoint of a flow with random weights, and return its path."""
    trainer = make_trainer("flow", folder / name, latents)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in trainer.ema.averages.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save(folder / f"{name}.safetensors", collect(trainer))
    return folder / f"{name}.safetensors"


def test_the_guided_velocity_goes_beyond_the_better_flow(tmp_path: Path, latents: Path) -> None:
    better, worse = (trained_flow(tmp_path, latents, n, s) for s, n in enumerate(("better", "worse")))
    model = make_trainer("flow", tmp_path, latents).model
    stage = FlowStage(model, STAGES["flow"].trains, guide=2.0, guides=[str(better), str(worse)])
    batch = LatentSampler(LatentStore.open(latents, STAGES["flow"].latents), 64, 0).batch(0, 0, 2)
    z, time = torch.randn_like(batch["mean"]), torch.tensor([0.3, 0.9])
    v2, v1 = (flow(z, time, batch) for flow in stage.guides)
    torch.testing.assert_close(stage._guided(z, time, batch), v2 + 2 * (v2 - v1), rtol=1e-4, atol=1e-5)
    assert (v2 - v1).abs().max() > 0.01
    assert not any(p.requires_grad for p in stage.guides.parameters())
    loss = stage(batch, batch["level"])["loss"]
    loss.backward()
    assert float(loss.detach()) > 0 and all(p.grad is None for p in stage.guides.parameters())


def test_guidance_needs_two_flows(tmp_path: Path, latents: Path) -> None:
    codec = tmp_path / "codec.safetensors"
    save(codec, collect(make_trainer("codec", tmp_path, latents)))
    with pytest.raises(TrainingError, match="guide above 0 needs guides"):
        FlowStage(SPRDiff(NANO), (), guide=1.0, guides=[str(codec)])
    with pytest.raises(TrainingError, match="guide above 0 needs guides"):
        FlowStage(SPRDiff(NANO), (), guides=[str(codec), str(codec)])
    with pytest.raises(TrainingError, match="has no trained flow"):
        FlowStage(SPRDiff(NANO), (), guide=1.0, guides=[str(codec), str(codec)])


# ---------------------------------------------------------------------------- losses and recipes


def test_feature_losses(tmp_path: Path, latents: Path) -> None:
    module: Any = make_trainer("vae", tmp_path, latents).module
    features = module.perception.features.features
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    for distance in (feature_distance, feature_statistics):
        assert distance(features(a), features(a)) == 0 and distance(features(a), features(b)) > 0.01


def test_lambda_grows_geometrically_from_end_to_end() -> None:
    bounds = NANO.lambda_range
    low, middle, high = lambda_of(torch.tensor([0.0, 127.5, 255.0]), bounds).tolist()
    assert (low, high) == pytest.approx(bounds) and middle**2 == pytest.approx(low * high)


def test_stages_are_recipes_with_known_parts() -> None:
    names = [n for n, _ in SPRDiff(NANO).named_parameters()]
    for stage in STAGES.values():
        assert set(stage.networks) <= set(PARTS) and set(stage.needs) <= set(PARTS)
        assert all(any(n.startswith(prefix) for n in names) for prefix in stage.trains)
    made = {part for stage in STAGES.values() for part in stage.networks}
    assert made == set(PARTS) - {"triple_encoder.semantic"} and set(CODEC_PARTS) <= made


def test_an_abstract_stage_says_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="StageModule is abstract"):
        StageModule(SPRDiff(NANO), ())(torch.zeros(1), torch.zeros(1))
