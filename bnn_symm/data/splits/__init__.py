"""Split points into train, validation and test: at random, by group, by time, or into folds.

In: the number of points, the configuration, and what it names (classes, groups, times). Out:
`SplitIndices`. A rule orders the points, takes a fraction of them, and divides them into folds.
Reading order: `settings`, `rule`, `random_rule`, `group_rule`, `time_rule`, `gap`, `split`.
"""

from bnn_symm.data.splits.gap import gap_mask
from bnn_symm.data.splits.split import OwnSplit, SplitIndices, split_points

__all__ = ["OwnSplit", "SplitIndices", "gap_mask", "split_points"]
