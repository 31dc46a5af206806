"""Maximize a sum of bilinear assignments over a permutation group.

Input: an objective of `alignment.objective` and the groups that may move. Output: a permutation.
Reading order: `assignment`, `blocks`, `channels`, `gains`, `coordinate`, `relaxation`,
`frank_wolfe`, `sinkhorn`, `straight_through`.
"""
