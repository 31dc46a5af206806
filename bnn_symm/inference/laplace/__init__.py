"""Approximate the posterior around a mode by the curvature there.

Input: a model and data. Output: a normal distribution around a mode, whose predictions are those of
the network or of its linearization. Reading order: `laplace` (settings and fit), `structures`,
`curvature`, `kronecker`, `blocks`, `evidence`.
"""
