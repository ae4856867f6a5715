"""Training of the preset `sd`: its stages, its losses, and its model sharded over several GPUs."""
