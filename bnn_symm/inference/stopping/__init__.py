"""Stop sampling when it no longer beats the ensemble that it started from.

In: the draws of a running sampler, its starting points and the validation split. Out: a decision,
with confidence intervals that hold at every look. Reading order: `gain_test`, `betting`.
"""
