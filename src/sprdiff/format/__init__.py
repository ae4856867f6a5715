"""The file and the exact coding of its latents, with numpy and, if it is installed, constriction; no
network runtime."""
