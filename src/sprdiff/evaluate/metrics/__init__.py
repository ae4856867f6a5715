"""The metrics: distortion in numpy, perceptual distances and distances of distributions in torch."""
