"""Compare the convergence of several runs, in groups that differ in nothing but seeds.

Reading order: `report`, `seed_groups`, `target`, `times`, `comparisons`.
"""
