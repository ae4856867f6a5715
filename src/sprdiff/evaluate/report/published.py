"""Figures that papers have published for Kodak, drawn as dashed lines beside a run on the same photographs.

They are quoted and not measured here: settings and machines are others, and perhaps the backbone of LPIPS is,
too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_KODAK = re.compile(r"kodim\d\d\.\w+", re.IGNORECASE)

FROM_FILES = "exact"
READ_OFF = "±0.0003 bpp and ±0.003 of the figure"


@dataclass(frozen=True)
class PublishedCurve:
    """A published curve.

    Attributes:
        codec: its name in the literature.
        metric: the metric, under the name it has in a run.
        rates: bits per pixel.
        values: the means over Kodak's 24 photographs, one per rate, in the metric's unit.
        source: where the figures come from.
        accuracy: whether the figures are exact, or how well they could be read off a plot.
        warning: why they are not comparable with the run's own; empty if no reason is known.
    """

    codec: str
    metric: str
    rates: tuple[float, ...]
    values: tuple[float, ...]
    source: str
    accuracy: str
    warning: str = ""


_GUESSED_VGG = "the paper does not name LPIPS' backbone: its figures look like VGG"
_ALEX = (
    "LPIPS with the AlexNet backbone, as their code computes it; "
    "resizing and value range may differ from ours"
)
_ALEX_PLOT = "LPIPS with the AlexNet backbone according to the paper; not checked in code"
_DISTS = "DISTS of their own code: its weights or its resizing may differ from ours"

_SPRDIFF = ("SPRDiff (paper)", "SPRDiff, arXiv 2606.01608, read off its plots", READ_OFF)
_STABLECODEC = ("StableCodec", "StableCodec, results file or code of its repository", FROM_FILES)
_AEIC = ("AEIC-ME", "AEIC, results file or code of its repository", FROM_FILES)
_ONEDC = ("OneDC", "OneDC, read off its plots", READ_OFF)

_SPRDIFF_BPP = (0.0139, 0.0204, 0.0280)
_STABLECODEC_BPP = (0.00579, 0.01083, 0.01333, 0.01707, 0.02026, 0.02504, 0.02865, 0.03413)
_AEIC_BPP = (0.00564, 0.01011, 0.01684, 0.02602, 0.03760)
_ONEDC_BPP = (0.0034, 0.0101, 0.0165, 0.0245, 0.0354)

Values = tuple[float, ...]


def _curve(
    of: tuple[str, str, str], metric: str, rates: Values, values: Values, warning: str = ""
) -> PublishedCurve:
    assert len(rates) == len(values)
    codec, source, accuracy = of
    return PublishedCurve(codec, metric, rates, values, source, accuracy, warning)


KODAK = (
    _curve(_SPRDIFF, "psnr", _SPRDIFF_BPP, (21.96, 22.59, 22.98)),
    _curve(_SPRDIFF, "ms_ssim", _SPRDIFF_BPP, (0.752, 0.788, 0.806)),
    _curve(_SPRDIFF, "lpips_vgg", _SPRDIFF_BPP, (0.325, 0.300, 0.283), _GUESSED_VGG),
    _curve(_SPRDIFF, "dists", _SPRDIFF_BPP, (0.122, 0.108, 0.099), _DISTS),
    _curve(_STABLECODEC, "psnr", _STABLECODEC_BPP, (20.27, 21.31, 21.65, 22.05, 22.30, 22.63, 22.78, 23.01)),
    _curve(
        _STABLECODEC,
        "ms_ssim",
        _STABLECODEC_BPP,
        (0.6434, 0.7120, 0.7336, 0.7573, 0.7736, 0.7909, 0.8001, 0.8122),
    ),
    _curve(
        _STABLECODEC,
        "lpips_alex",
        _STABLECODEC_BPP,
        (0.3097, 0.2444, 0.2285, 0.2069, 0.1952, 0.1821, 0.1743, 0.1664),
        _ALEX,
    ),
    _curve(
        _STABLECODEC,
        "dists",
        _STABLECODEC_BPP,
        (0.1518, 0.1246, 0.1167, 0.1079, 0.1030, 0.0981, 0.0965, 0.0917),
        _DISTS,
    ),
    _curve(_AEIC, "psnr", _AEIC_BPP, (20.00, 21.07, 22.04, 22.77, 23.30)),
    _curve(_AEIC, "ms_ssim", _AEIC_BPP, (0.637, 0.703, 0.760, 0.802, 0.832)),
    _curve(_AEIC, "lpips_alex", _AEIC_BPP, (0.311, 0.244, 0.198, 0.164, 0.143), _ALEX),
    _curve(_AEIC, "dists", _AEIC_BPP, (0.140, 0.116, 0.101, 0.088, 0.082), _DISTS),
    _curve(_ONEDC, "psnr", _ONEDC_BPP[:4], (17.1, 20.6, 21.5, 22.2)),
    _curve(_ONEDC, "lpips_alex", _ONEDC_BPP, (0.380, 0.221, 0.183, 0.154, 0.133), _ALEX_PLOT),
    _curve(_ONEDC, "dists", _ONEDC_BPP, (0.204, 0.131, 0.110, 0.097, 0.085), _DISTS),
)


def is_kodak(images: Iterable[str]) -> bool:
    """Whether all file names are Kodak's (``kodim01.png`` … in any format); False for no images."""
    names = list(images)
    return bool(names) and all(_KODAK.fullmatch(name) for name in names)


def published_for(metric: str, images: Iterable[str]) -> list[PublishedCurve]:
    """Return the curves for this metric; there are none unless the images are Kodak's."""
    return [curve for curve in KODAK if curve.metric == metric] if is_kodak(images) else []
