"""Fit a parametric distribution to the posterior by maximizing the ELBO.

Reading order: `mean_field_vi`, `ivon`, `objective`, `estimators`, `local_reparameterization`,
`flipout`, `low_rank_vi`, `low_rank_objective`, `symmetrized_vi`, `symmetry_information`.
"""
