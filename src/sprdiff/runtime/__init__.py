"""The network runtimes: `analyse` and `decode`, on both sides of the exactness line."""
