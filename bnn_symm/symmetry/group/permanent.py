"""Permanents of matrices of densities, from their logarithms: exactly when small, bounded from
above when large.

    perm(A) = sum over permutations p of prod_i A[i, p(i)]

`log_permanent` goes through subsets of columns, row by row (Bellman 1962, as for the travelling
    salesman): what the
first k rows add up to on every k columns. All terms are positive and stay logarithms, so that
nothing cancels, as it does in Ryser's formula, and nothing overflows. It takes n 2^(n-1) additions.

`log_permanent_bound` is an upper bound for any size in n^2 log n steps (Soules 2005). With a row's
entries in descending order a_1 >= ... >= a_n, and gamma(k) = (k!)^(1/k),

    perm(A) <= prod_i sum_k a_ik (gamma(k) - gamma(k - 1))

It follows from what Minc conjectured and Bregman (1973) proved, perm <= prod_i gamma(k_i) for a
matrix of k_i ones a row and zeros elsewhere: a row is sum_k (a_k - a_(k+1)) times the row with ones
at its k largest, and a permanent is linear in every row. It is exact where every row is one entry
among zeros, where all entries are equal, and where equal entries come in blocks. Rows and columns
may be scaled first, and change places: every choice is a bound, and the least of several is one.

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

# Rounds of scaling rows and columns to sum 1, before the bound is taken. Any number gives a bound.
_SCALING_ROUNDS = 10


def log_permanent(logs: Float[Tensor, "*draw n n"]) -> Float[Tensor, "*draw"]:
    """The logarithm of the permanent of a matrix, or of each of a batch, from the logarithms of its
    entries.

    Args:
        logs: in float64, finite. Some n C(n, n/2) numbers a matrix are held at once: 11,000 of 12
            rows.
    """
    size = logs.shape[-1]
    sums = logs[..., 0, :]
    for row in range(1, size):
        without, last = _subset_tables(size, row + 1)
        sums = (sums[..., without] + logs[..., row, :][..., last]).logsumexp(-1)
    return sums.squeeze(-1)


@cache
def _subset_tables(size: int, count: int) -> tuple[Tensor, Tensor]:
    """For every subset of `count` columns: which subset is left without each of its columns, and
    that column.

    Subsets are numbered in the order of `itertools.combinations`.
    """
    number = {subset: i for i, subset in enumerate(combinations(range(size), count - 1))}
    subsets = list(combinations(range(size), count))
    without = [[number[subset[:i] + subset[i + 1 :]] for i in range(count)] for subset in subsets]
    return torch.tensor(without), torch.tensor(subsets)


def log_permanent_bound(logs: Float[Tensor, "*draw n n"]) -> Float[Tensor, "*draw"]:
    """An upper bound of the logarithm of the permanent, from the logarithms of the entries, in
    float64.
    """
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
    """Log n!, of any size."""
    return math.lgamma(number + 1)
