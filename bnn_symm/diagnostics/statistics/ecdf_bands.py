r"""Whether numbers in (0, 1) are uniform, or symmetric about 1/2: bands and tests on their ECDF,
all of them exact.

Uniform. The ECDF of n numbers is looked at in the points z_i = i / K. If they are independent and
uniform, the count below z_i is Binomial(n, z_i); the band is the set of counts both of whose tails
have a probability above gamma / 2, and gamma is as large as it may be for

    P(the count leaves the band at any z_i) <= level.

Säilynoja et al. find gamma by simulation or by optimization. Here the probability is exact and
    cheap: given their sum,
multinomial counts of the intervals are independent Poisson counts, so that it is K convolutions
with one Poisson distribution. The test that goes with the band takes as its statistic the smallest
tail over all z_i, so that an ECDF leaves the band of a level exactly if its p-value is at most that
level.

Symmetric. The distance D of Kolmogorov and Smirnov between the numbers p and 1 - p. The two are not
independent samples, so that the tables of Kolmogorov and Smirnov reject too often: at 5 % of
theirs, about one in ten. But, ordered by |p - 1/2|, the sides on which symmetric numbers fall are
fair coins, and n D is how far a fair random walk of n steps goes from where it began, whose
distribution is known exactly.

References:
    Säilynoja, Bürkner and Vehtari 2022, doi:10.1007/s11222-022-10090-6, arXiv:2103.10522 (bands);
    Butler 1969, doi:10.1214/aoms/1177697302 (symmetry).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from bnn_symm.errors import ConfigError

# Points where an ECDF is looked at, at most. More tell little more: neighbors nearly agree.
_MOST_POINTS = 100
# Of the bisection for gamma on a logarithmic scale; counts are whole numbers, so that more changes
# nothing.
_BISECTIONS = 50


@dataclass(frozen=True, kw_only=True)
class EcdfBand:
    """Where the whole ECDF of independent uniform numbers stays with probability 1 - level, or a
    little more.

    Attributes:
        num_values: how many numbers.
        level: that the band was made for.
        coverage: the probability that the whole ECDF is within, the edges included.
        points: where it is looked at, in (0, 1).
        lower: the least value of the ECDF within the band.
        upper: the greatest.
    """

    num_values: int
    level: float
    coverage: float
    points: Float[np.ndarray, " point"]
    lower: Float[np.ndarray, " point"]
    upper: Float[np.ndarray, " point"]

    def holds(self, values: Float[np.ndarray, " value"]) -> bool:
        """Whether the ECDF of these numbers is within everywhere."""
        own = ecdf(values, self.points)
        return bool(((own >= self.lower - 1e-12) & (own <= self.upper + 1e-12)).all())


def ecdf(
    values: Float[np.ndarray, " value"], points: Float[np.ndarray, " point"]
) -> Float[np.ndarray, " point"]:
    """The share of the numbers that are at most each point."""
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


def ecdf_band(num_values: int, *, level: float = 0.05, num_points: int | None = None) -> EcdfBand:
    """The simultaneous band of the ECDF of so many independent uniform numbers.

    Args:
        num_values: how many; 2 or more.
        level: the probability of leaving it, at most. Of several ECDFs at once, divide it by their
            number (Bonferroni).
        num_points: K, the number of intervals; default `num_values`, but at most 100.

    Raises:
        ConfigError: for a single number, or a level outside (0, 1).
    """
    if num_values < 2 or not 0 < level < 1:
        raise ConfigError(
            f"a band of {num_values} numbers at level {level:g}: wanted 2 numbers or more and a "
            "level between 0 and 1"
        )
    grid = _grid(num_values, num_points)
    # One point alone leaves with probability gamma at most, all together with at most gamma times
    # their number.
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
    """The probability that the ECDF of as many uniform numbers strays as far as that of these, or
    farther.

    Args:
        values: in (0, 1), two or more.
        num_points: as of `ecdf_band`, whose bands it agrees with.
    """
    grid = _grid(len(values), num_points)
    counts = np.rint(ecdf(values, grid.points) * len(values)).astype(int)
    rows = np.arange(len(counts))
    gamma = 2 * float(np.minimum(grid.below[rows, counts], grid.above[rows, counts]).min())
    # Far out, the difference from 1 is rounding; the one tail that was seen is a lower bound.
    return min(1.0, max(1 - grid.coverage(gamma), gamma / 2))


def symmetry_p_value(values: Float[np.ndarray, " value"]) -> float:
    """The probability that numbers symmetric about 1/2 are as far from their mirror image as these,
    or farther.

    P(max_k |S_k| >= n D) for the sums S_k of n fair signs, where D is the largest distance between the ECDFs of the
    numbers and of 1 less them.
    """
    number = len(values)
    order = np.argsort(-np.abs(values - 0.5), kind="stable")
    reach = int(np.abs(np.cumsum(np.sign(values[order] - 0.5))).max(initial=0))
    if reach == 0:
        return 1.0
    # Of walks that have not been as far as `reach`: the probability of every place.
    places = np.zeros(2 * reach - 1)
    places[reach - 1] = 1.0
    for _ in range(number):
        places = 0.5 * (np.append(places[1:], 0.0) + np.append(0.0, places[:-1]))
    return min(1.0, max(0.0, 1 - float(places.sum())))


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
        self.below = stats.binom.cdf(counts, num_values, self.points[:, None])
        self.above = stats.binom.sf(counts - 1, num_values, self.points[:, None])
        self._poisson = stats.poisson.pmf(counts, self._rate)

    def bounds(self, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest count at each point with both tails above gamma / 2."""
        return (self.below <= gamma / 2).sum(1), (self.above > gamma / 2).sum(1) - 1

    def coverage(self, gamma: float) -> float:
        """P(no count is outside these bounds)."""
        lower, upper = self.bounds(gamma)
        if (lower > upper).any():
            return 0.0
        probability, first = np.ones(1), 0  # of each count from `first` on, at the point before
        for least, greatest in zip([*lower, self._number], [*upper, self._number], strict=True):
            reached = np.convolve(probability, self._poisson[: greatest - first + 1])
            probability, first = reached[least - first : greatest - first + 1], least
        return float(probability[0] / stats.poisson.pmf(self._number, self._number))


@lru_cache(maxsize=16)
def _grid(num_values: int, intervals: int | None) -> _Grid:
    return _Grid(num_values, intervals or max(2, min(num_values, _MOST_POINTS)))
