"""The preset `sd`: the same design on Stable-Diffusion-class parts (extra: sd)."""
