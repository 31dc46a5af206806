"""Estimate the ELBO, its symmetrized form, and the effects of symmetry and pruning.

Reading order: `elbo`, `symmetrized_elbo`, `monte_carlo_error`, `pruning`, `symmetry_defect`,
`interpretation`.
"""
