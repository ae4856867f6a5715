"""The first generation of `tiny` (weights 8f4b), kept until new weights ship: it decodes, and nothing
trains it."""
