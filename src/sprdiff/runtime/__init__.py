"""Network runtimes: `analyse` and `decode`, the networks on both sides of the exactness line."""
