"""Compute what commands report about runs, as plain data; one file for each command.

Input: opened runs. Output: dictionaries, which are the JSON of the commands. Reading order:
`diagnosis` (which uses `mixing`, `predictions`, `elbo` and `convergence`), `alignment`, `barriers`,
`sequences`, `sequence_barriers`, `merging`, `monotonicity`, `symmetry`, `prior`, `sbc_runner`,
`raw_draws`, `posterior_scales`.
"""
