"""Run chains, ensemble members and simulations in several processes.

Reading order: `independent_chains`, `worker_pool`, `spawning`, `process_group`.
"""
