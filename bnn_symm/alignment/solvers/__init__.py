"""Maximize a sum of bilinear assignments over a permutation group.

In: an objective of `alignment.objective` and the groups that may move. Out: a permutation. Reading
    order:
`assignment`, `blocks`, `gains`, `coordinate`, `relaxation`, `frank_wolfe`, `sinkhorn`,
`straight_through`.
"""
