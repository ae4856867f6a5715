"""Bjøntegaard deltas: the mean distance of two rate-quality curves, along the rate and along the quality.

Bjøntegaard, "Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33, 2001, as the package
`bjontegaard` computes them. Curves are interpolated with PCHIP (piecewise cubic, monotone), as JVET's common
test conditions do: with the three or four points of a run a cubic through all of them may swing, this cannot.
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
"""Points per curve below which no delta is given: two say nothing about the shape of a curve."""
USUAL = 4
"""Points per curve from which a delta is what the field calls one; with fewer it is marked as a rough figure."""
SMALL_OVERLAP = 0.5
"""Share of the joint range below which the two curves are compared on a small part of themselves only."""

Curve = Sequence[tuple[float, float]]
"""Pairs (rate in bpp, quality), in any order."""


@dataclass(frozen=True)
class Delta:
    """One Bjøntegaard delta, or why there is none.

    Attributes:
        value: percent (rate) or the unit of the metric (quality); None where it cannot be had.
        reason: of the None; else a warning, or empty.
    """

    value: float | None
    reason: str = ""


def bd_rate(anchor: Curve, test: Curve, *, higher_is_better: bool) -> Delta:
    """Return the rate that `test` needs for the same quality, against `anchor`, in percent; below 0: `test` needs fewer bytes."""
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
    """Return the quality that `test` has above `anchor` at the same rate, in the metric's own unit and direction.

    Above 0 means larger figures, which is worse where lower is better (LPIPS).
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
    """Return by rate, with a quality of which more is better."""
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
        warnings.simplefilter("ignore")  # a small overlap: said in our own words
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
