"""Photographs for training: from folders, and from shards near and far."""
