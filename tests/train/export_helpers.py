"""What the tests of export know of the networks that they export."""

from __future__ import annotations

CHANGED = ("latent_mean", "latent_std", "flow.pixel16.bias", "flow.semantic32.bias")


CARD = {"data": "none: random weights", "hours": 0.5}
