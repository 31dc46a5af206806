"""Sample the posterior with stochastic gradients: SGLD, SGHMC, cyclical SGHMC and SGMCLMC.

Reading order: `sgld`, `sghmc`, `cyclical_sghmc`, `sgmclmc` (settings), `stationary`, `langevin`,
`sampler`, `preconditioning`.
"""
