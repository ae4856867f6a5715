"""Bjøntegaard deltas: the mean distance between two rate-quality curves, along the rate and along the
quality.

They are defined in Bjøntegaard, "Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33,
2001, and the package `bjontegaard` computes them. Curves are interpolated with PCHIP (piecewise cubic,
monotone), as in JVET's common test conditions: a cubic through all of the three or four points of a run may
overshoot, PCHIP cannot.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ..metrics.tensors import need

METHOD = "pchip"
FEWEST = 3
"""With fewer points per curve there is no delta: two points do not tell the shape of a curve."""
USUAL = 4
"""With fewer points per curve a delta is marked as a rough figure."""
SMALL_OVERLAP = 0.5
"""If the common part of both ranges is smaller, there is a warning that only a small part of the curves is
compared."""

Curve = Sequence[tuple[float, float]]
"""Pairs (rate in bpp, quality), in any order."""


@dataclass(frozen=True)
class Delta:
    """One Bjøntegaard delta, or the reason why there is none.

    Attributes:
        value: in percent (rate) or in the unit of the metric (quality); None if there is none.
        reason: why there is none, or else a warning; empty if there is nothing to say.
    """

    value: float | None
    reason: str = ""


def bd_rate(anchor: Curve, test: Curve, *, higher_is_better: bool) -> Delta:
    """Return how much more rate `test` needs than `anchor` for the same quality, in percent; below 0 it
    needs less."""
    sign = 1.0 if higher_is_better else -1.0
    reason = _unusable(anchor, sign) or _unusable(test, sign)
    if reason:
        return Delta(None, reason)
    ours, theirs = _sorted(anchor, sign), _sorted(test, sign)
    overlap = _overlap([q for _, q in ours], [q for _, q in theirs])
    if overlap <= 0:
        return Delta(None, "no quality that both reach")
    value = _call("bd_rate", ours, theirs)
    return _delta(value, overlap, min(len(ours), len(theirs)))


def bd_quality(anchor: Curve, test: Curve, *, higher_is_better: bool) -> Delta:
    """Return how much higher the figure of `test` is than that of `anchor` at the same rate, in the metric's
    unit.

    Above 0 is worse if a lower figure is better (LPIPS).
    """
    sign = 1.0 if higher_is_better else -1.0
    reason = _unusable(anchor, sign) or _unusable(test, sign)
    if reason:
        return Delta(None, reason)
    ours, theirs = _sorted(anchor, sign), _sorted(test, sign)
    overlap = _overlap([math.log(r) for r, _ in ours], [math.log(r) for r, _ in theirs])
    if overlap <= 0:
        return Delta(None, "no rate that both have")
    delta = _delta(_call("bd_psnr", ours, theirs), overlap, min(len(ours), len(theirs)))
    return delta if delta.value is None else Delta(sign * delta.value, delta.reason)


def _sorted(curve: Curve, sign: float) -> list[tuple[float, float]]:
    """Sort a curve by rate; turn the sign of the quality if lower is better."""
    return sorted((rate, sign * quality) for rate, quality in curve)


def _unusable(curve: Curve, sign: float) -> str:
    if len(curve) < FEWEST:
        return f"fewer than {FEWEST} rates"
    points = _sorted(curve, sign)
    if points[0][0] <= 0 or not all(math.isfinite(v) for point in points for v in point):
        return "a rate or a figure is not usable"
    if any(b[0] <= a[0] or b[1] <= a[1] for a, b in itertools.pairwise(points)):
        return "quality does not rise with every rate"
    return ""


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the shared part of two ranges as a share of both together, 0 to 1."""
    shared = min(max(a), max(b)) - max(min(a), min(b))
    return max(shared, 0.0) / (max(*a, *b) - min(*a, *b))


def _call(name: str, anchor: Curve, test: Curve) -> float:
    function = getattr(need("bjontegaard"), name)
    columns = [[point[i] for point in curve] for curve in (anchor, test) for i in (0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small overlap, which has a warning of its own
        return float(function(*columns, method=METHOD, require_matching_points=False, min_overlap=0))


def _delta(value: float, overlap: float, points: int) -> Delta:
    if not math.isfinite(value):
        return Delta(None, "no finite result")
    notes = []
    if points < USUAL:
        notes.append(f"from {points} rates only")
    if overlap < SMALL_OVERLAP:
        notes.append("from less than half of the joint range")
    return Delta(value, ", ".join(notes))
