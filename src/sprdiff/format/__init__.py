"""The file and the exact coding of its latents: numpy and constriction only, no network runtime."""
