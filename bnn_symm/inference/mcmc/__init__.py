"""Sample the posterior with Hamiltonian Monte Carlo, all chains in one batch.

Input: a tempered density. Output: draws (chain, draw, parameter) with their statistics. Reading
order: `nuts`, `hmc`, `chees_hmc` (settings), `sampler`, `batched_chains`, `kernel`, `hmc_kernel`,
`step_loop`, `nuts_kernel`, `nuts_tree`, `integrator`, `adaptation`. `pyro_engine` runs Pyro's own
kernels as a reference.
"""
