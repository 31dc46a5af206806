"""Compute permanents from log entries, exactly for small matrices or as an upper bound.

    perm(A) = sum over permutations p of prod_i A[i, p(i)]

`log_permanent` is a dynamic program over subsets of columns, row by row (Bellman 1962, as for the
traveling salesman problem): the sum over the first k rows for every set of k columns. All terms
are positive and stay in log space, so nothing cancels, as it does in Ryser's formula, and nothing
overflows. It takes n 2^(n-1) additions.

`log_permanent_bound` is an upper bound for any size in n^2 log n steps (Soules 2005). With the
entries of a row in descending order a_1 >= ... >= a_n, and gamma(k) = (k!)^(1/k),

    perm(A) <= prod_i sum_k a_ik (gamma(k) - gamma(k - 1))

It follows from the inequality conjectured by Minc and proved by Bregman (1973), perm <= prod_i
gamma(k_i) for a 0-1 matrix with k_i ones in row i: a row is sum_k (a_k - a_(k+1)) times the row
with ones at its k largest entries, and a permanent is linear in every row. The bound is exact where
every row has a single nonzero entry, where all entries are equal, and where equal entries form
blocks. Rows and columns may be scaled first, or exchanged: every choice gives a bound, and the
smallest of several is one.

References:
    Soules (2005), Linear Algebra and its Applications 394; Bregman (1973), Soviet Mathematics
    Doklady 14:945.
"""

import math
from functools import cache
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

# Rounds of scaling rows and columns to sum 1 before the bound is computed. Any number is valid.
_SCALING_ROUNDS = 10


def log_permanent(logs: Float[Tensor, "*draw n n"]) -> Float[Tensor, "*draw"]:
    """Return the log permanent of a matrix, or of each matrix of a batch, from its log entries.

    Args:
        logs: log entries in float64, finite. About n C(n, n/2) numbers are held in memory for each
            matrix: 11,000 for 12 rows.
    """
    size = logs.shape[-1]
    sums = logs[..., 0, :]
    for row in range(1, size):
        without, last = _subset_tables(size, row + 1)
        sums = (sums[..., without] + logs[..., row, :][..., last]).logsumexp(-1)
    return sums.squeeze(-1)


@cache
def _subset_tables(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Return tables of the subsets of `count` columns: the index of each subset without one column.

    The first table has, for every subset and each of its columns, the index of the subset without
    this column; the second one has the columns. Subsets are numbered in the order of
    `itertools.combinations`.
    """
    number = {subset: i for i, subset in enumerate(combinations(range(size), count - 1))}
    subsets = list(combinations(range(size), count))
    without = [[number[subset[:i] + subset[i + 1 :]] for i in range(count)] for subset in subsets]
    return torch.tensor(without), torch.tensor(subsets)


def log_permanent_bound(logs: Float[Tensor, "*draw n n"]) -> Float[Tensor, "*draw"]:
    """Return an upper bound of the log permanent, from the log entries in float64."""
    plain = torch.minimum(_rowwise(logs), _rowwise(logs.mT))
    rows, columns = torch.zeros_like(logs[..., :1]), torch.zeros_like(logs[..., :1, :])
    for _ in range(_SCALING_ROUNDS):
        rows = -(logs + columns).logsumexp(-1, keepdim=True)
        columns = -(logs + rows).logsumexp(-2, keepdim=True)
    scaled = logs + rows + columns
    undone = rows.sum((-2, -1)) + columns.sum((-2, -1))
    return torch.minimum(plain, torch.minimum(_rowwise(scaled), _rowwise(scaled.mT)) - undone)


def _rowwise(logs: Tensor) -> Tensor:
    size = logs.shape[-1]
    k = torch.arange(1, size + 1, dtype=logs.dtype)
    gamma = (torch.lgamma(k + 1) / k).exp()
    steps = torch.cat([gamma[:1], gamma.diff()]).log()
    return (logs.sort(-1, descending=True).values + steps.to(logs.device)).logsumexp(-1).sum(-1)


def log_factorial(number: int) -> float:
    """Return the logarithm of n! for n of any size."""
    return math.lgamma(number + 1)
