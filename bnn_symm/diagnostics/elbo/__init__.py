"""Estimate the ELBO, its symmetrized form, and what symmetry and pruning cost.

Reading order: `elbo`, `symmetrized_elbo`, `monte_carlo_error`, `pruning`, `symmetry_defect`,
    `interpretation`.
"""
