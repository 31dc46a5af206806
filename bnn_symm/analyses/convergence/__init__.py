"""Compare the convergence of several runs, in groups that differ only in their seeds.

Reading order: `report`, `seed_groups`, `target`, `times`, `comparisons`.
"""
