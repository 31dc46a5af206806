"""Measure the loss between posteriors: along lines, along curves and over simplices.

Reading order: `barriers`, `interpolation`, `curves`, `repair`, `temperature_scaled`,
`layerwise`, `decomposition`, `simplex`, `bezier_curves`, `monotonicity`.
"""
