"""Means with 95 % confidence intervals, and differences of codecs on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..metrics.tensors import need

LEVEL = 0.95
"""The probability that an interval contains the mean of the population from which the images are drawn."""


@dataclass(frozen=True)
class Interval:
    """A mean over images.

    Attributes:
        mean: the mean in the unit of the values.
        half: half the width of the 95 % confidence interval, in the same unit; None for a single value.
        n: the number of values.
    """

    mean: float
    half: float | None
    n: int

    @property
    def holds_zero(self) -> bool:
        """Whether the interval contains zero, which makes a difference of two codecs a tie; False if there
        is no interval."""
        return self.half is not None and abs(self.mean) <= self.half


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the mean and Student's t interval (mean ± t · s / √n, with n - 1 degrees of freedom); None
    without values.

    The images count as independent draws. The interval tells how far the mean would move with other images of
    the kind.
    """
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    quantile = float(need("scipy.special").stdtrit(n - 1, (1 + LEVEL) / 2))
    return Interval(mean, quantile * deviation / math.sqrt(n), n)


def paired_interval(a: Mapping[str, float], b: Mapping[str, float]) -> Interval | None:
    """Return the mean of ``a - b`` over the images that both have, with its interval.

    It is much narrower than the intervals of the two means, because it does not contain how hard each
    photograph is.
    """
    return mean_interval([value - b[image] for image, value in a.items() if image in b])
