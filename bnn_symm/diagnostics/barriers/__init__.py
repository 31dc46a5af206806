"""Measure the loss between posteriors: along lines, along curves and over simplices.

Reading order: `barriers`, `interpolation`, `simplex`, `bezier_curves`, `monotonicity`.
"""
