"""A comparison: every codec encodes every photograph at every rate, in worker processes."""
