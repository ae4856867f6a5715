"""Network runtimes: `analyse` and `synthesise`, the networks on both sides of the exactness line."""
