"""Colours that a file names without an ICC profile become an ICC profile: there is one way to sRGB for all
pictures.

The codes are those of ITU-T H.273 (CICP), which AVIF, HEIF and PNG share. The transfer curves of video
(BT.709, BT.2020 and similar ones) are treated as displays treat them, which is the curve of sRGB.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Xy = tuple[float, float]

D65: Xy = (0.3127, 0.3290)
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), D65)
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65)
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65)
_C: Xy = (0.310, 0.316)

PRIMARIES: dict[int, tuple[Xy, Xy, Xy, Xy]] = {
    1: SRGB,
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: BT2020,
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: P3,
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
"""(red, green, blue, white) in CIE xy, by code."""

SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_AS_SRGB = frozenset({1, 2, 6, 7, 11, 12, 13, 14, 15})
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
HDR = {16: "PQ", 18: "HLG"}
"""Transfer curves for brighter displays."""

ADOBE_GAMMA = 563 / 256
_SAME = 0.005
"""Chromaticities that are closer than this are equal, because files round them to two or three digits."""
_GAMMA_SAME = 0.05  # the tolerance of libpng: a smaller difference cannot be seen

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50_XYZ = np.array([0.9642, 1.0, 0.8249])


@dataclass(frozen=True)
class Named:
    """The result of a named colour.

    Attributes:
        profile: an ICC profile; None: the colour is sRGB, or is read as sRGB.
        doubt: why it is read as sRGB although it may be something else; empty if there is no doubt.
    """

    profile: bytes | None = None
    doubt: str = ""


def from_codes(primaries: int, transfer: int) -> Named:
    """Return the colour by the codes of CICP."""
    if transfer in HDR:
        return Named(doubt=f"HDR transfer curve {HDR[transfer]}")
    known = primaries == 2 or primaries in PRIMARIES
    if not known or not (transfer in _AS_SRGB or transfer in _GAMMAS):
        return Named(doubt=f"unknown colour space {primaries}/{transfer}")
    chosen = PRIMARIES.get(primaries, SRGB)
    if chosen == SRGB and transfer in _AS_SRGB:
        return Named()
    return Named(matrix_profile(chosen, (_GAMMAS[transfer],) if transfer in _GAMMAS else SRGB_CURVE))


def from_chromaticities(found: Sequence[float] | None, gamma: float | None) -> Named:
    """Return the colour of the chunks cHRM and gAMA of PNG, or of the fields of BMP with the same meaning.

    Args:
        found: x and y of white, red, green and blue; None: those of sRGB.
        gamma: the exponent of the encoding, such as 0.45455; None: the curve of sRGB.
    """
    primaries = SRGB
    if found is not None:
        pairs = [(found[i], found[i + 1]) for i in range(0, 8, 2)]
        primaries = (pairs[1], pairs[2], pairs[3], pairs[0])
        if not _usable(primaries):
            return Named(doubt="unusable colour description")
    if gamma is not None and not 0.02 <= gamma <= 5:
        return Named(doubt="unusable colour description")
    usual = gamma is None or abs(gamma * 2.2 - 1) <= _GAMMA_SAME
    if usual and _alike(primaries, SRGB):
        return Named()
    if usual and _alike(primaries, ADOBE):
        return adobe()
    # Together with known primaries, 1/2.2 usually means the curve of sRGB.
    return Named(matrix_profile(primaries, SRGB_CURVE if usual or gamma is None else (1 / gamma,)))


def adobe() -> Named:
    """Return Adobe RGB (1998)."""
    return Named(matrix_profile(ADOBE, (ADOBE_GAMMA,)))


def _alike(a: Sequence[Xy], b: Sequence[Xy]) -> bool:
    return bool(np.abs(np.array(a) - np.array(b)).max() < _SAME)


def _usable(primaries: tuple[Xy, Xy, Xy, Xy]) -> bool:
    """Whether the primaries form a triangle around white."""
    red, green, blue, white = (np.array(xy) for xy in primaries)
    if min(xy[1] for xy in primaries) <= 0.001 or max(max(xy) for xy in primaries) > 1.5:
        return False
    edges = np.array([green - red, blue - red]).T
    if abs(np.linalg.det(edges)) < 1e-3:
        return False
    inside = np.linalg.solve(edges, white - red)
    return bool(inside.min() > 0 and inside.sum() < 1)


def _xyz(xy: Xy) -> NDArray[np.float64]:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def matrix_profile(primaries: tuple[Xy, Xy, Xy, Xy], curve: Sequence[float]) -> bytes:
    """Return an ICC profile (version 4) of an RGB space; see ICC.1, sections 7, 9 and 10.

    Args:
        primaries: red, green, blue and white in CIE xy.
        curve: from samples to light: (g,) for ``x**g``; (g, a, b, c, d) for ``(a x + b)**g``, below d ``c
            x``.
    """
    columns = np.stack([_xyz(xy) for xy in primaries[:3]], axis=1)
    white = _xyz(primaries[3])
    columns = columns * np.linalg.solve(columns, white)
    cones = np.diag((_BRADFORD @ _D50_XYZ) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ columns
    kind = 0 if len(curve) == 1 else 3
    tone = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(curve)
    tags = {b"desc": _text("sprdiff"), b"cprt": _text("none"), b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50_XYZ)}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True):
        tags[name] = b"XYZ \0\0\0\0" + _fixed(column)
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone)
    return _packed(tags)


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _packed(tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = start + len(body)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x04200000, b"mntr", b"RGB ", b"XYZ ") + date + b"acsp"
    head += b"\0" * 28 + _fixed(_D50_XYZ)
    return head.ljust(128, b"\0") + table + body
