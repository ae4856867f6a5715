"""Tests of samplers against flows that are known exactly, and of the strides that a network is told."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from sprdiff.models.config import STEP_SIZES
from sprdiff.runtime.sampler import euler_steps, solve

NOISE = np.array([-1.5, 0.2, 2.0])
COUNTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 23]


def flow(z: Any, time: float, stride: float) -> Any:
    """Return the velocity of dz/dt = 3z, of which a network knows the mean over its strides; stride 0 is the
    velocity at this time."""
    size = STEP_SIZES[int(stride)]
    return z * (3.0 if size == 0 else (1 - math.exp(-3 * size)) / size)


EXACT = NOISE * math.exp(-3)


@pytest.mark.parametrize("count", COUNTS)
def test_steps_go_from_noise_to_the_latent(count: int) -> None:
    steps = euler_steps(count)
    assert len(steps) == count and steps[0].time == 1
    for step, then in zip(steps, [*steps[1:], None], strict=True):
        assert step.time - step.size == pytest.approx(then.time if then else 0)
        assert (
            (STEP_SIZES[step.stride] == step.size)
            if count <= 8
            else (step.size == STEP_SIZES[step.stride] or step.size < 1 / 8)
        )
        assert step.time / step.size == pytest.approx(round(step.time / step.size)), (
            "as the network was trained"
        )


@pytest.mark.parametrize(
    ("count", "strides"), [(1, [4]), (2, [3, 3]), (3, [3, 2, 2]), (4, [2] * 4), (8, [1] * 8)]
)
def test_the_network_is_told_the_size_of_its_step(count: int, strides: list[int]) -> None:
    assert [step.stride for step in euler_steps(count)] == strides


@pytest.mark.parametrize("count", range(1, 9))
def test_few_steps_of_a_network_that_knows_them_are_exact(count: int) -> None:
    assert np.allclose(solve(flow, NOISE, count), EXACT, atol=1e-12)


def test_more_steps_of_the_flow_itself_are_nearer() -> None:
    def known(z: Any, time: float, stride: float) -> Any:
        return flow(z, time, 0.0)

    for sampler, factor in (("euler", 0.7), ("heun", 0.4)):
        errors = [np.abs(solve(known, NOISE, n, sampler) - EXACT).max() for n in (8, 16, 32, 64)]
        assert all(b < factor * a for a, b in itertools.pairwise(errors)), sampler
    assert errors[-1] < 0.003


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("count", COUNTS)
def test_steps_count_evaluations(sampler: str, count: int) -> None:
    asked: list[tuple[float, float]] = []

    def velocity(z: Any, time: float, stride: float) -> Any:
        asked.append((time, stride))
        return z * 0

    assert np.array_equal(solve(velocity, NOISE, count, sampler), NOISE)
    assert len(asked) == count and all(0 <= time <= 1 for time, _ in asked)
    assert sampler == "euler" or {stride for _, stride in asked} == {0.0}


def test_the_network_is_asked_at_no_later_time() -> None:
    asked: list[float] = []

    def velocity(z: Any, time: float, stride: float) -> Any:
        asked.append(time)
        return z * 0

    solve(velocity, NOISE, 4, latest=0.97)
    assert asked == [0.97, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_noise_is_left_as_it_was_and_tensors_do_as_well(sampler: str) -> None:
    noise = NOISE.copy()
    found = solve(flow, noise, 6, sampler)
    assert np.array_equal(noise, NOISE)
    tensor = solve(flow, torch.from_numpy(NOISE.copy()), 6, sampler)
    assert isinstance(tensor, torch.Tensor) and np.allclose(tensor.numpy(), found)
    assert solve(flow, NOISE.astype(np.float32), 6, sampler).dtype == np.float32
