"""From noise to a latent along a flow, in a given number of evaluations of any velocity network.

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
"""z_t, time in 0-1 and stride as an index into `STEP_SIZES` -> the velocity, in an array that the solver may
change."""


class Step(NamedTuple):
    """One step down: from a time, by a size, with the stride that the network is told (an index into
    `STEP_SIZES`)."""

    time: float
    size: float
    stride: int


def euler_steps(count: int) -> list[Step]:
    """Return the steps of so many evaluations, each of a size that the network knows where there are at most 8.

    A power of two gives equal steps. Of other numbers the first steps are those of the power of two below,
    the last ones half as long: 3 are 1/2, 1/4, 1/4. A network that was trained for few steps gives the mean
    velocity over a stride, and it learnt a stride only at times that are multiples of it. Three equal steps
    would need the mean over a third, of which it knows nothing; so every number of evaluations up to 8 is
    made of steps that it was trained for, and none is worse than the power of two below. Steps below an
    eighth take stride 0: the velocity at the very time.
    """
    finest = count.bit_length() - 1
    halved = count - (1 << finest)
    sizes = [0.5**finest] * ((1 << finest) - halved) + [0.5 ** (finest + 1)] * (2 * halved)
    steps, time = [], 1.0
    for size in sizes:
        steps.append(Step(time, size, STEP_SIZES.index(size) if size in STEP_SIZES else 0))
        time -= size
    return steps


def euler(velocity: Velocity[A], z: A, steps: int) -> A:
    """Return the latent that noise z leads to, in `steps` evaluations, one for each of `euler_steps`."""
    for time, size, stride in euler_steps(steps):
        z = _moved(z, velocity(z, time, float(stride)), -size)
    return z


def heun(velocity: Velocity[A], z: A, steps: int) -> A:
    """Return the same by Heun's method: equal steps of two evaluations each; of an odd number the last step has one.

    The network is asked for the velocity at the very time (stride 0): Heun's method does the averaging
    itself.
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
"""By the name that a manifest has."""


def solve(velocity: Velocity[A], z: A, steps: int, sampler: str = "euler", latest: float = 1.0) -> A:
    """Return the latent that noise z leads to.

    Args:
        velocity: the network.
        z: standard normal noise.
        steps: how often the network is evaluated, at least 1.
        sampler: ``euler`` or ``heun``.
        latest: the network is asked at no later time, for it may never have learnt what is beyond.
    """
    found: A = SAMPLERS[sampler](lambda at, time, stride: velocity(at, min(time, latest), stride), z, steps)
    return found


def _moved(z: A, velocity: A, by: float) -> A:
    """Return Z + by·velocity, in the memory of the velocity: latents of large pictures are large."""
    velocity *= by
    velocity += z
    return velocity
