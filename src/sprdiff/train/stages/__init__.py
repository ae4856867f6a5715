"""The stages of preset `tiny`: each computes its loss from a batch."""
