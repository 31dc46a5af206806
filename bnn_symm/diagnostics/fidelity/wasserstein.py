r"""Compute Wasserstein-1 distances between predictive distributions, point by point.

In one dimension W1 is the area between the distribution functions (Vallender 1974,
doi:10.1137/1118101),

    W1(F, G) = \int |F(t) - G(t)| dt = \int_0^1 |F^-1(u) - G^-1(u)| du.

- Two sets of draws: the second integral, a sum over the levels i / n and j / m. It equals
  `scipy.stats.wasserstein_distance`.
- Two mixtures of normals: with A(t) = E max(t - y, 0), which a normal has in closed form, A' = F.
  Between two nodes where F - G has one sign, the area is the difference of A_F - A_G. A crossing
  between two nodes becomes a node, found by false position. Both tails are exact.
- Two mixtures of distributions of counts: the sum over counts of |F - G|.
- Other mixtures: a quadrature of |F - G|.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.diagnostics.scores.crps import count_range
from bnn_symm.diagnostics.scores.normal_mixtures import NormalMixture
from bnn_symm.diagnostics.scores.quadrature import place_nodes, quadrature
from bnn_symm.models.likelihoods import count_intervals, is_count
from bnn_symm.posteriors import Predictive

# Nodes of a mixture of normals, and steps from them to a crossing. The error of W1 between two
# normals is then below 1e-8 of it.
_NODES, _ITERATIONS = 48, 3
# Values of a component at once (64 MB in float64).
_NUMBERS_AT_ONCE = 2**23


def wasserstein_of_draws(
    first: Float[np.ndarray, "draw column"], second: Float[np.ndarray, "other column"]
) -> Float[np.ndarray, " column"]:
    """Return W1 between two sets of equally likely draws of each column.

    Args:
        first: Draws of every quantity.
        second: Other draws of the same quantities; their number may differ.

    Returns:
        One distance per column.

    Example:
        >>> wasserstein_of_draws(np.array([[0.0], [2.0]]), np.array([[1.0]]))
        array([1.])
    """
    a, b = np.sort(first, axis=0), np.sort(second, axis=0)
    n, m = len(a), len(b)
    if n == m:
        return np.abs(a - b).mean(0)
    # Levels at which one of the quantile functions steps, in units of 1 / (n m).
    steps = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(steps, prepend=0) / (n * m)
    return widths @ np.abs(a[(steps - 1) // m] - b[(steps - 1) // n])


def wasserstein_of_mixtures(first: Predictive, second: Predictive) -> Float[Tensor, " point"]:
    """Return W1 between predictive distributions of numbers or counts, in the target's own units.

    It is exact for mixtures of normals and for counts up to some thousands, and a quadrature for
    larger counts and other likelihoods.

    Args:
        first: Predictive mixture.
        second: Predictive mixture at the same points.

    Returns:
        One distance per point.
    """
    if is_count(first.likelihood):
        return _of_counts(first, second)
    a, b = NormalMixture.of(first, first), NormalMixture.of(second, first)
    if a is None or b is None:
        return _by_quadrature(first, second)
    nodes = place_nodes([(a.mean, a.sd), (b.mean, b.sd)], _NODES)
    gap, area = _gaps(a, b, nodes)
    # The area between the functions up to each node, then from the last node on.
    pieces = torch.diff(area, dim=0, prepend=torch.zeros_like(area[:1])).abs()
    means = [(own.weight * own.mean).sum(0) for own in (a, b)]
    tail = (means[1] - means[0] - area[-1]).abs()
    cell, point = torch.nonzero(gap[:-1] * gap[1:] < 0, as_tuple=True)
    ends = [(values[cell, point], values[cell + 1, point]) for values in (nodes, gap)]
    middle = _areas_at_crossings(a, b, point, *ends)
    pieces[cell + 1, point] = (middle - area[cell, point]).abs() + (
        area[cell + 1, point] - middle
    ).abs()
    return first.scale * (pieces.sum(0) + tail)


def _gaps(first: NormalMixture, second: NormalMixture, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Return F - G and A_F - A_G at all nodes, (node, point)."""
    gaps, areas = [], []
    for t in nodes:
        (f, below_f), (g, below_g) = first.below(t), second.below(t)
        gaps.append(f - g)
        areas.append(below_f - below_g)
    return torch.stack(gaps), torch.stack(areas)


def _areas_at_crossings(
    first: NormalMixture,
    second: NormalMixture,
    points: Tensor,
    nodes: tuple[Tensor, Tensor],
    gaps: tuple[Tensor, Tensor],
) -> Tensor:
    """Return A_F - A_G where F - G is zero between two nodes of one point, by false position."""
    at_once = max(1, _NUMBERS_AT_ONCE // max(len(first.mean), len(second.mean)))
    areas = [points.new_zeros(0, dtype=torch.float64)]
    parts = zip(*(own.split(at_once) for own in (points, *nodes, *gaps)), strict=True)
    for chosen, left, right, before, after in parts:
        a, b = first.take(chosen), second.take(chosen)
        area = torch.zeros_like(left)
        for _ in range(_ITERATIONS):
            t = left + (right - left) * before / (before - after)
            (gap,), (area,) = _gaps(a, b, t[None])
            is_before = gap * before > 0
            left, right = torch.where(is_before, t, left), torch.where(is_before, right, t)
            before, after = torch.where(is_before, gap, before), torch.where(is_before, after, gap)
        areas.append(area)
    return torch.cat(areas)


def _of_counts(first: Predictive, second: Predictive) -> Tensor:
    (low, high), (other_low, other_high) = count_range(first), count_range(second)
    lowest, highest = low.minimum(other_low), high.maximum(other_high)
    finite = torch.isfinite(highest)
    total = torch.zeros_like(highest)
    for start, end in count_intervals(lowest, torch.where(finite, highest, lowest)):
        value = ((start + end) / 2).floor()
        total += (end - start + 1) * (first.cdf(value) - second.cdf(value)).abs()
    return torch.where(finite, total, torch.inf)


def _by_quadrature(first: Predictive, second: Predictive) -> Tensor:
    total = first.outputs.new_zeros(first.outputs.shape[2], dtype=torch.float64)
    for value, weight in quadrature(first, second):
        total += weight * (first.cdf(value) - second.cdf(value)).abs()
    return total
