"""Folders of latents: what a receiver knows of many training crops, computed once for the later stages."""
