"""Sample the posterior by microcanonical Langevin dynamics, all chains in one batch.

Input: a tempered density. Output: draws (chain, draw, parameter) with their statistics. Reading
order: `mclmc` (settings), `mclmc_kernel`, `isokinetic`. The engine is that of `mcmc`.
"""
