"""Training (extra ``train``): `run` runs one stage, `export` writes weights, `latents` folders of latents."""
