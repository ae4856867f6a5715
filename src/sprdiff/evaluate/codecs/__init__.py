"""The codecs that are compared, each behind the same few methods."""
