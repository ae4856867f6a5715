"""Validation: rates, distortions and samples of photographs that training leaves out."""
