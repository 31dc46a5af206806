"""Check priors and inference on simulated data.

Reading order: `prior_predictive`, `sbc`, `sbc_simulation`.
"""
