"""What several folders share: files written whole, progress, worker processes."""
