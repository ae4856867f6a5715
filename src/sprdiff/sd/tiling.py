"""How preset `sd` cuts a large picture into tiles, and what is done to the finished picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CELL = 64
"""Pixels of a position of y; pictures are padded to multiples of it. It is also the cell of colour
correction."""
LATENT = 8
"""Pixels of a position of the VAE's latent."""


@dataclass(frozen=True)
class Tiling:
    """The side of tiles and what neighbours share, in pixels; all are multiples of 64.

    The UNet has seen 512 to 768 pixels in training and its attention costs the square; the encoders get more
    around every place, since what they miss is lost for good; the decoder of the VAE looks least far.
    """

    encoder: int = 1024
    encoder_overlap: int = 256
    denoiser: int = 768
    denoiser_overlap: int = 256
    decoder: int = 768
    decoder_overlap: int = 128
    receiver: int = 2048
    halo: int = 832

    @classmethod
    def of(cls, side: int) -> Tiling:
        """Return tiles that all have one side of at least 128 pixels; overlaps are a third and a sixth of it.

        Raises:
            ValueError: the side is no such multiple of 64.
        """
        if side < 128 or side % CELL:
            raise ValueError(
                f"the side of a tile must be a multiple of 64 of at least 128 pixels, not {side}"
            )
        third, sixth = (max(1, side // CELL // n) * CELL for n in (3, 6))
        return cls(side, third, side, third, side, sixth, side)


def mix(coarse: Floats, picture: Floats, realism: float) -> Floats:
    """Compute (1 - realism) · x̃ + realism · x̂ in the memory of the second."""
    picture *= np.float32(realism)
    for row in range(picture.shape[1]):
        picture[:, row] += np.float32(1 - realism) * coarse[:, row]
    return picture


def finished(picture: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Turn [3, h, w] into [h, w, 3], clipped; uint8 is rounded, and NaN becomes black."""
    if dtype not in (np.dtype(np.float32), np.dtype(np.uint8)):
        raise ValueError(f"a picture is float32 or uint8, not {dtype}")
    out = np.empty((*picture.shape[1:], 3), dtype)
    for row in _rows(picture):
        values = np.fmin(np.fmax(picture[:, row], 0), 1).transpose(1, 2, 0)
        out[row] = values if dtype == np.float32 else (values * 255 + 0.5).astype(np.uint8)
    return out


def _rows(picture: Floats, count: int = 256) -> Iterator[slice]:
    return (slice(top, min(top + count, picture.shape[1])) for top in range(0, picture.shape[1], count))
