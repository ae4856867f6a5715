"""One comparison: every codec on every photograph at every rate, in worker processes."""
