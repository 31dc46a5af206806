"""Run chains, ensemble members, simulations and tasks of studies in several processes.

`workers` alone starts processes on this machine. Reading order: `workers`, `worker_pool`,
`independent_chains`, `process_group`.
"""
