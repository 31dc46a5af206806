r"""Test whether numbers in (0, 1) are uniform, or symmetric about 1/2, by exact ECDF bands.

Uniform. The ECDF of n numbers is evaluated at the points z_i = i / K. If the numbers are
independent and uniform, the count below z_i is Binomial(n, z_i). The band is the set of counts both
of whose tail probabilities exceed gamma / 2, with the largest gamma for which

    P(the count leaves the band at any z_i) <= level.

Säilynoja et al. find gamma by simulation or by optimization. Here the probability is exact and
cheap: given their sum, multinomial counts of the intervals are independent Poisson counts, so it
takes K convolutions with one Poisson distribution. The test statistic of the corresponding test is
the smallest tail probability over all z_i, so an ECDF leaves the band of a level exactly if its
p-value is at most that level.

Symmetric. The statistic is the Kolmogorov-Smirnov distance D between the numbers p and 1 - p. The
two samples are not independent, so Kolmogorov-Smirnov tables reject too often: at 5 %, about one in
ten. But, ordered by |p - 1/2|, the sides on which symmetric numbers fall are fair coin flips, and
n D is the largest distance of a fair random walk of n steps from its start, whose distribution is
known exactly.

References:
    Säilynoja, Bürkner and Vehtari 2022, doi:10.1007/s11222-022-10090-6, arXiv:2103.10522 (bands);
    Butler 1969, doi:10.1214/aoms/1177697302 (symmetry).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from jaxtyping import Float

from bnn_symm.errors import ConfigError

# Maximum number of points of an ECDF. More add little: neighbors are nearly equal.
_MOST_POINTS = 100
# Bisections for gamma on a logarithmic scale; counts are integers, so more change nothing.
_BISECTIONS = 50


@dataclass(frozen=True, kw_only=True)
class EcdfBand:
    """Simultaneous band of the ECDF of independent uniform numbers.

    The whole ECDF is within the band with probability 1 - level, or slightly more.

    Attributes:
        num_values: Number of values.
        level: Requested level of the band.
        coverage: Probability that the whole ECDF is within the band, edges included.
        points: Points of evaluation, in (0, 1).
        lower: Smallest value of the ECDF within the band.
        upper: Largest value of the ECDF within the band.
    """

    num_values: int
    level: float
    coverage: float
    points: Float[np.ndarray, " point"]
    lower: Float[np.ndarray, " point"]
    upper: Float[np.ndarray, " point"]

    def holds(self, values: Float[np.ndarray, " value"]) -> bool:
        """Return whether the ECDF of these numbers is within the band everywhere."""
        heights = ecdf(values, self.points)
        return bool(((heights >= self.lower - 1e-12) & (heights <= self.upper + 1e-12)).all())


def ecdf(
    values: Float[np.ndarray, " value"], points: Float[np.ndarray, " point"]
) -> Float[np.ndarray, " point"]:
    """Return the fraction of the numbers that are at most each point.

    Args:
        values: Numbers.
        points: Points of evaluation.

    Returns:
        One fraction per point.
    """
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


def ecdf_band(num_values: int, *, level: float = 0.05, num_points: int | None = None) -> EcdfBand:
    """Return the simultaneous band of the ECDF of independent uniform numbers.

    Args:
        num_values: Number of values, 2 or more.
        level: Maximum probability of leaving the band. For several ECDFs, divide it by their number
            (Bonferroni).
        num_points: Number K of intervals; default `num_values`, but at most 100.

    Returns:
        The band.

    Raises:
        ConfigError: If there is a single number, or the level is outside (0, 1).
    """
    if num_values < 2 or not 0 < level < 1:
        raise ConfigError(
            f"cannot make a band of {num_values} numbers at level {level:g}; use 2 numbers or more "
            "and a level between 0 and 1"
        )
    grid = _grid(num_values, num_points)
    # A single point leaves the band with probability at most gamma, all of them together with at
    # most gamma times their number.
    low, high = math.log(level / (2 * len(grid.points))), 0.0
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if 1 - grid.coverage(math.exp(middle)) <= level:
            low = middle
        else:
            high = middle
    lower, upper = grid.bounds(math.exp(low))
    return EcdfBand(
        num_values=num_values,
        level=level,
        coverage=grid.coverage(math.exp(low)),
        points=grid.points,
        lower=lower / num_values,
        upper=upper / num_values,
    )


def uniformity_p_value(
    values: Float[np.ndarray, " value"], *, num_points: int | None = None
) -> float:
    """Return the p-value of the uniformity of numbers, by the deviation of their ECDF.

    Args:
        values: Two or more numbers in (0, 1).
        num_points: As in `ecdf_band`, whose bands agree with this test.

    Returns:
        The probability that uniform numbers deviate at least as far.
    """
    grid = _grid(len(values), num_points)
    counts = np.rint(ecdf(values, grid.points) * len(values)).astype(int)
    rows = np.arange(len(counts))
    gamma = 2 * float(np.minimum(grid.below[rows, counts], grid.above[rows, counts]).min())
    # In the far tail the difference from 1 is rounding; the observed tail is a lower bound.
    return min(1.0, max(1 - grid.coverage(gamma), gamma / 2))


def symmetry_p_value(values: Float[np.ndarray, " value"]) -> float:
    """Return the p-value of the symmetry of numbers about 1/2.

    P(max_k |S_k| >= n D) for the sums S_k of n fair signs, where D is the largest distance between
    the ECDFs of the numbers and of 1 minus the numbers.

    Args:
        values: Numbers in (0, 1).

    Returns:
        The probability that symmetric numbers are at least as far from their mirror image.
    """
    number = len(values)
    order = np.argsort(-np.abs(values - 0.5), kind="stable")
    reach = int(np.abs(np.cumsum(np.sign(values[order] - 0.5))).max(initial=0))
    if reach == 0:
        return 1.0
    # Probability of every position of a walk that has stayed within `reach`.
    positions = np.zeros(2 * reach - 1)
    positions[reach - 1] = 1.0
    for _ in range(number):
        positions = 0.5 * (np.append(positions[1:], 0.0) + np.append(0.0, positions[:-1]))
    return min(1.0, max(0.0, 1 - float(positions.sum())))


class _Grid:
    """Counts of n uniform numbers below K - 1 equally spaced points.

    Attributes:
        points: (point,).
        below: (point, count), P(count at most this).
        above: (point, count), P(count at least this).
    """

    def __init__(self, num_values: int, intervals: int):
        self._number, self._rate = num_values, num_values / intervals
        self.points = np.arange(1, intervals) / intervals
        counts = np.arange(num_values + 1)
        self.below = scipy.stats.binom.cdf(counts, num_values, self.points[:, None])
        self.above = scipy.stats.binom.sf(counts - 1, num_values, self.points[:, None])
        self._poisson = scipy.stats.poisson.pmf(counts, self._rate)

    def bounds(self, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest and largest count at each point with both tails above gamma / 2."""
        return (self.below <= gamma / 2).sum(1), (self.above > gamma / 2).sum(1) - 1

    def coverage(self, gamma: float) -> float:
        """Return the probability that no count is outside these bounds."""
        lower, upper = self.bounds(gamma)
        if (lower > upper).any():
            return 0.0
        probability, first = np.ones(1), 0  # of each count from `first`, at the previous point
        for least, greatest in zip([*lower, self._number], [*upper, self._number], strict=True):
            reached = np.convolve(probability, self._poisson[: greatest - first + 1])
            probability, first = reached[least - first : greatest - first + 1], least
        return float(probability[0] / scipy.stats.poisson.pmf(self._number, self._number))


@lru_cache(maxsize=16)
def _grid(num_values: int, intervals: int | None) -> _Grid:
    return _Grid(num_values, intervals or max(2, min(num_values, _MOST_POINTS)))
