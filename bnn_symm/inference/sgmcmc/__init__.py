"""Sample the posterior with stochastic gradients: SGLD, SGHMC and cyclical SGHMC.

Reading order: `sgld`, `sghmc`, `cyclical_sghmc` (settings), `stationary`, `sampler`,
`preconditioning`.
"""
