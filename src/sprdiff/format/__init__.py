"""The file and the exact coding of its latents: numpy, and constriction where there is one; no network runtime."""
