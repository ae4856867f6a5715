"""Network runtimes: what runs the networks on both sides of the exactness line, `analyse` and `synthesise`."""
