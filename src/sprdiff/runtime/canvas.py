"""The array in which a decoder assembles its tiles; it is the only one of the size of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import WeightsError
from ..imageio.resize import Slices


class Canvas:
    """A picture that is assembled part by part.

    Attributes:
        image: [height, width, 3], float32 in 0-1 or uint8 in 0-255.
    """

    def __init__(self, size: tuple[int, int], dtype: DTypeLike) -> None:
        if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.uint8)):
            raise ValueError(f"a picture is float32 or uint8, not {np.dtype(dtype)}")
        self.image: NDArray[Any] = np.empty((*size, 3), dtype)

    def put(self, part: Slices, picture: NDArray[np.float32], weight: float = 1.0) -> None:
        """Blend a picture, [3, h, w] in 0-1, into a part of the canvas; what lies beyond its border is cut.

        Values are clipped to 0-1; NaN, which damaged latents can cause, becomes 0. With uint8 the earlier
        picture has been rounded already, to within half of 255.

        Args:
            weight: the weight of the new picture; the earlier one has the rest.
        """
        target = self.image[part]
        if picture.ndim != 3 or len(picture) != 3:
            raise WeightsError(f"a graph gives a picture of shape {picture.shape}")
        new = np.fmax(picture[:, : target.shape[0], : target.shape[1]], 0)
        np.fmin(new, 1, out=new)
        unit = np.float32(255 if self.image.dtype == np.uint8 else 1)
        new *= np.float32(weight) * unit
        if weight < 1:
            new += np.float32(1 - weight) * target.transpose(2, 0, 1)
        if self.image.dtype == np.uint8:
            new += np.float32(0.5)  # the cast rounds down
            target[:] = new.astype(np.uint8).transpose(1, 2, 0)
        else:
            target[:] = new.transpose(1, 2, 0)
