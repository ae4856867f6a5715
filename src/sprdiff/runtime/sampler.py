"""Sampling: from noise to a latent along a flow, in a given number of evaluations of any velocity network.

    z_t = (1 − t)·z + t·ε,  dz/dt = v: from t = 1 (noise) down to t = 0 (the latent)

Arrays may be numpy's or torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ..models.config import STEP_SIZES

A = TypeVar("A", bound=Any)
Velocity = Callable[[A, float, float], A]
"""z_t, the time in 0-1, and the stride as an index into `STEP_SIZES` -> the velocity, in an array that the
solver may change."""


class FlowStep(NamedTuple):
    """One step down: its start time, its size, and the stride that the network is told (an index into
    `STEP_SIZES`)."""

    time: float
    size: float
    stride: int


def euler_steps(count: int) -> list[FlowStep]:
    """Return the steps of so many evaluations; up to 8 evaluations have only step sizes that the network
    knows.

    A power of two gives equal steps. For other numbers the first steps are those of the power of two below,
    and the last ones are half as long: 3 are 1/2, 1/4, 1/4. A network that was trained for few steps returns
    the mean velocity over a stride, and has learnt a stride only at times that are multiples of it. Three
    equal steps would need the mean over a third, which it does not know. So every number of evaluations up to
    8 consists of steps that were trained, and none is worse than the power of two below. Steps below an
    eighth have stride 0: the velocity at one time.
    """
    finest = count.bit_length() - 1
    halved = count - (1 << finest)
    sizes = [0.5**finest] * ((1 << finest) - halved) + [0.5 ** (finest + 1)] * (2 * halved)
    steps, time = [], 1.0
    for size in sizes:
        steps.append(FlowStep(time, size, STEP_SIZES.index(size) if size in STEP_SIZES else 0))
        time -= size
    return steps


def euler(velocity: Velocity[A], z: A, steps: int) -> A:
    """Solve with Euler's method, in `steps` evaluations, one for each of `euler_steps`."""
    for time, size, stride in euler_steps(steps):
        z = _moved(z, velocity(z, time, float(stride)), -size)
    return z


def heun(velocity: Velocity[A], z: A, steps: int) -> A:
    """Solve with Heun's method: equal steps of two evaluations each; with an odd number the last step has
    one.

    The network computes the velocity at one time (stride 0), because Heun's method averages by itself.
    """
    count = math.ceil(steps / 2)
    for i in range(count):
        time, size = 1 - i / count, 1 / count
        v = velocity(z, time, 0.0)
        if 2 * i + 1 < steps:
            there = velocity(_moved(z, v * 1.0, -size), max(0.0, time - size), 0.0)
            v += there
            v *= 0.5
        z = _moved(z, v, -size)
    return z


SAMPLERS: dict[str, Callable[[Velocity[Any], Any, int], Any]] = {"euler": euler, "heun": heun}
"""The solvers by their names in manifests."""


def solve(velocity: Velocity[A], z: A, steps: int, sampler: str = "euler", latest: float = 1.0) -> A:
    """Return the latent to which noise z leads.

    Args:
        velocity: the network.
        z: standard normal noise.
        steps: how often the network is evaluated, at least 1.
        sampler: ``euler`` or ``heun``.
        latest: the network is evaluated at no later time, because it may not have learnt later ones.
    """
    found: A = SAMPLERS[sampler](lambda at, time, stride: velocity(at, min(time, latest), stride), z, steps)
    return found


def _moved(z: A, velocity: A, by: float) -> A:
    """Return z + by·velocity in the memory of the velocity, because latents of large pictures are large."""
    velocity *= by
    velocity += z
    return velocity
