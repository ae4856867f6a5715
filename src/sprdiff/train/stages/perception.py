"""The loss of stages that make pictures: L1, EfficientNet-Lite0's features, and statistics of these."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...models.efficientnet import EfficientNetLite0
from ..losses import feature_distance, feature_statistics
from .base import Scalars

SHIFT = 4
"""The features see the picture from one of 4x4 corners, because a pooling grid that never moves would leave a
pattern."""
TEXTURE = 5.0
"""The weight of the statistics."""


class Perception(nn.Module):
    """Distances of pictures from originals: L1, that of Lite0's features, and that of their means and
    deviations in windows, so that texture does not fade.

    Args:
        absolute: the weight of L1.
        crops: how many crops of a batch the features see; the others count in L1 alone.
    """

    def __init__(self, absolute: float, crops: int) -> None:
        super().__init__()
        self.features = EfficientNetLite0().load_package()
        self.absolute, self.crops = absolute, crops

    def forward(self, picture: Tensor, original: Tensor) -> Scalars:
        """Compare pictures [N,3,H,W] with originals in 0-1; the sum of what it returns is the loss."""
        top, left = (int(v) for v in torch.randint(SHIFT, (2,)))
        with torch.no_grad():
            wanted = self.features.features(original[: self.crops, :, top:, left:])
        shown = self.features.features(picture[: self.crops, :, top:, left:])
        return {
            "absolute": self.absolute * (picture.float() - original).abs().mean(),
            "feature": feature_distance(shown, wanted),
            "texture": TEXTURE * feature_statistics(shown, wanted),
        }
