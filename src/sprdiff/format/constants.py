"""The numbers of the file format that several modules need; ``docs/bitstream.md`` is the normative text.

This module imports nothing, so that the command line can read it without loading numpy.
"""

from __future__ import annotations

LEVELS = 256
"""Quality levels, from 0 (the smallest file) to 255."""
KNOTS, KNOT_SPACING = 9, 32
"""Whatever depends on the level is piecewise linear between 9 knots that are 32 levels apart."""

FRACTION = 8
"""Fraction bits of latents, of means and of level weights."""
WEIGHT_FRACTION = 12
"""Fraction bits of the weights of integer networks."""
GAIN_FRACTION = 16
"""Fraction bits of gains."""
INDEX_SCALE = 16
"""Tables per unit of what the last layer of a context network gives for the table index."""

SYMBOL_LIMIT = 32767
"""Largest magnitude of a symbol, and of a weight of an integer network."""
MEAN_LIMIT = 2**18 - 1
"""Largest magnitude of a mean in units of 1/256: 1024 symbols. At 0.04 bits per pixel the largest latents lie
30 symbols from 0."""
HIDDEN_LIMIT = 16383
"""Largest activation of an integer network, in units of 1/256."""

PRECISION = 24
"""The counts of a table sum to 2 to this power."""
SMALLEST_SIGMA = 0.1
"""Standard deviation of the narrowest table, in symbols."""
TAIL = 2.0**-12
"""Weight of the wider Gaussian that makes the built tables slightly heavy-tailed."""
