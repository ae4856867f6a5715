"""The codecs that are compared; all have the same few methods."""
