"""Bayesian neural network inference that takes weight-space symmetry seriously."""
